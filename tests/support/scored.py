"""Predictions made by a known process, for what is computed from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finetune.evaluation.predictions import Predictions, to_probabilities
from finetune.report.run_data import RunData
from finetune.runs.run import Run


def scored(
    num: int,
    num_labels: int,
    *,
    seed: int = 0,
    multilabel: bool = False,
    sure: float = 1.5,
    ties: bool = False,
    absent: Sequence[int] = (),
    scale: float = 1.0,
) -> Predictions:
    """Draw targets, and logits that are higher by `sure` for what is true.

    Args:
        num: How many images.
        num_labels: How many labels.
        seed: Of the draws.
        multilabel: Whether an image may have several labels.
        sure: How well the labels are told apart.
        ties: Whether logits are rounded, so that many are equal.
        absent: Labels without an image.
        scale: What the logits are multiplied with: above 1 the probabilities are too sure.
    """
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(num, num_labels))
    if multilabel:
        targets = (generator.random((num, num_labels)) < 0.3).astype(int)
        targets[:, list(absent)] = 0
        logits += sure * (targets - 0.5)
    else:
        targets = generator.choice([k for k in range(num_labels) if k not in absent], num)
        logits[np.arange(num), targets] += sure
    logits = np.round(logits) if ties else logits
    return predicted(targets, to_probabilities(scale * logits, "multilabel" if multilabel else "multiclass"))


def predicted(targets: object, probabilities: object, labels: Sequence[str] | None = None) -> Predictions:
    """Make predictions of targets and probabilities; two-dimensional targets are multi-label."""
    values, truth = np.asarray(probabilities, np.float32), np.asarray(targets)
    ids = np.array([f"image{number}" for number in range(len(values))], object)
    return Predictions(
        ids=ids,
        paths=np.array([f"photos/{name}.jpg" for name in ids], object),
        targets=truth,
        probabilities=values,
        labels=tuple(labels or (f"class{number:03}" for number in range(values.shape[1]))),
        task="multilabel" if truth.ndim == 2 else "multiclass",
        groups=pd.DataFrame(index=range(len(ids))),
    )


def run_data_of(document: dict[str, Any] | None = None, **splits: Predictions) -> RunData:
    """Make what a section is told of a run that stored these predictions, and no more."""
    run = Run(Path("runs/bees/today"))
    return RunData(run=run, record={"id": "abcd1234"}, config={}, document=document or {}, splits=splits, history=[])
