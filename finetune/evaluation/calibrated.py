"""Calibrated predictions: probabilities scaled on validation, and what the scaling changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.data.table import ImageTable
from finetune.evaluation.metrics import compute_metrics
from finetune.evaluation.predictions import Predictions
from finetune.models.network import Network
from finetune.runtime.format import known
from finetune.uncertainty.ood.detector import Detector, FeaturesAndLogits
from finetune.uncertainty.scaling import FittedScaling, Method, fit_scaling

FITTED_ON = "val"
Outputs = Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]


@dataclass(frozen=True)
class CalibratedPredictions:
    """What a finished network says.

    Attributes:
        predictions: By split, scaled.
        fitted: How they were scaled.
        document: What metrics.json holds about it.
    """

    predictions: dict[str, Predictions]
    fitted: FittedScaling
    document: dict[str, Any]


@dataclass(frozen=True)
class FinishedModel:
    """A model that a run ships.

    Attributes:
        network: With its final weights.
        calibrated: What it says of validation and test.
        table: The images of the run.
        detector: Tells images unlike those of training; None for none.
        seen: Features and logits of some images, by split, on which the detector is judged.
        facts: What else metrics.json holds of it.
    """

    network: Network
    calibrated: CalibratedPredictions
    table: ImageTable
    detector: Detector | None = None
    seen: Mapping[str, FeaturesAndLogits] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def calibrate(table: ImageTable, outputs: Outputs, method: Method, seed: int) -> CalibratedPredictions:
    """Return predictions from logits, scaled as suits the validation split.

    Args:
        table: The images.
        outputs: By split, rows (N,) and logits (N, K), or (V, N, K) for images in several views.
        method: none, temperature or vector.
        seed: Deals validation images out to folds, on which a scaling has to be worth it.
    """
    rows, logits = outputs[FITTED_ON]
    multilabel = table.task == "multilabel"
    fitted = fit_scaling(logits, table.targets()[rows], method, multilabel=multilabel, seed=seed)
    plain = {split: Predictions.from_logits(table, *found) for split, found in outputs.items()}
    if fitted.scaling.method == "none":
        return CalibratedPredictions(plain, fitted, calibration_document(fitted, plain, plain))
    scaled = {
        split: Predictions.from_logits(table, places, fitted.scaling.apply(found, multilabel=multilabel))
        for split, (places, found) in outputs.items()
    }
    return CalibratedPredictions(scaled, fitted, calibration_document(fitted, plain, scaled))


def calibration_document(
    fitted: FittedScaling, plain: Mapping[str, Predictions], scaled: Mapping[str, Predictions]
) -> dict[str, Any]:
    """Return what was done and what it changed, as plain JSON; validation is flattered, since it was fitted there."""
    scaling = fitted.scaling
    changes = {}
    for split, before in plain.items():
        one, two = compute_metrics(before), compute_metrics(scaled[split])
        changes[split] = {name: {"before": known(one[name]), "after": known(two[name])} for name in one}
    return {
        "method": scaling.method, "asked": fitted.tried, "temperature": scaling.temperature,
        "scale": list(scaling.scale), "shift": list(scaling.shift), "fitted_on": FITTED_ON,
        "n": plain[FITTED_ON].num,
        "held_out_loss": {"before": known(fitted.before), "after": known(fitted.after)},
        "note": fitted.note, **changes,
    }  # fmt: skip
