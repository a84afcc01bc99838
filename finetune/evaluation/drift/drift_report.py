"""Drift: whether new images, and what a run says of them, are distributed like the validation images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.errors import ConfigError
from finetune.evaluation.drift.reference import SPLIT, load_reference, to_half_precision
from finetune.evaluation.drift.two_sample import Shift, class_shift, confidence_shift, feature_shift, label_shift
from finetune.evaluation.multiple_testing import holm
from finetune.evaluation.predictions import THRESHOLD, Predictions, PredictionTask
from finetune.runs.run import Run

_Document = dict[str, Any]
DriftArray = npt.NDArray[np.floating[Any]]

ALPHA = 0.01  # of all tests of an evaluation together, since a run is evaluated many times
_FEW = 30
_SHOWN = 3
_MISSING = (
    "The run has kept no features of its validation images (it is older than drift, or was not finished), so the new "
    "images themselves are not compared, only what is predicted for them."
)


@dataclass(frozen=True)
class DriftSample:
    """What is known of some images.

    Attributes:
        features: (M, F), pooled, of all images or of a random choice; None where they are not known.
        probabilities: (N, K) of all images.
    """

    features: DriftArray | None
    probabilities: DriftArray


def measure_drift(
    reference: DriftSample, new: DriftSample, labels: tuple[str, ...], *, multilabel: bool = False, seed: int = 0
) -> _Document:
    """Compare new images with those of validation, and return what is stored of it.

    Args:
        reference: The validation images.
        new: The new images.
        labels: K names.
        multilabel: Whether an image may have several labels.
        seed: Of the permutations.
    """
    shifts = {"inputs": input_shift(reference, new, seed)} | prediction_shifts(reference, new, multilabel, seed)
    found = {name: shift for name, shift in shifts.items() if shift is not None}
    count = len(new.probabilities)
    notes = [_MISSING] if reference.features is None else []
    notes += [f"{count} images are few: only a large drift would show."] if count < _FEW else []
    return {
        "against": SPLIT,
        "n": {"reference": len(reference.probabilities), "new": count},
        **{name: None if shift is None else asdict(shift) for name, shift in shifts.items()},
        "shares": largest_share_changes(reference, new, labels, multilabel),
        "drifted": significant_shifts(found),
        "notes": notes,
    }


def check_reference(run: Run, *, wanted: bool) -> None:
    """Check that a run has kept what drift is measured against, where that is wanted.

    Raises:
        ConfigError: It has not.
    """
    if wanted and not run.predictions_file(SPLIT).is_file():
        raise ConfigError(
            f"drift=true needs the run's validation predictions, and {run.predictions_file(SPLIT)} is missing. Use "
            "another run, or drift=false."
        )


def drift_of_run(
    run: Run, new: DriftSample, labels: tuple[str, ...], task: PredictionTask, *, seed: int
) -> _Document | None:
    """Compare new images with what a run has kept, or return None where it has not even predictions."""
    file = run.predictions_file(SPLIT)
    if not file.is_file():
        return None
    reference = load_reference(run)
    known = DriftSample(None if reference is None else reference.features, Predictions.load(file).probabilities)
    return measure_drift(known, new, labels, multilabel=task == "multilabel", seed=seed)


def input_shift(reference: DriftSample, new: DriftSample, seed: int) -> Shift | None:
    """Return how far the images are apart, or None where a side has no features."""
    if reference.features is None or new.features is None:
        return None
    before, now = (to_half_precision(part).astype(np.float32) for part in (reference.features, new.features))
    return feature_shift(before, now, seed=seed)


def prediction_shifts(reference: DriftSample, new: DriftSample, multilabel: bool, seed: int) -> dict[str, Shift | None]:
    """Return how far the predicted classes and the confidences are apart."""
    both = [reference.probabilities, new.probabilities]
    if multilabel:
        classes = label_shift(*((part > THRESHOLD).astype(np.int64) for part in both), seed=seed)
    else:
        classes = class_shift(*(predicted_counts(part, multilabel) for part in both), seed=seed)
    return {
        "classes": classes,
        "confidence": confidence_shift(*(decision_confidence(part, multilabel) for part in both)),
    }


def predicted_counts(probabilities: DriftArray, multilabel: bool) -> npt.NDArray[np.int64]:
    """Return how often each label is predicted (K,) of probabilities (N, K)."""
    if multilabel:
        return np.asarray((probabilities > THRESHOLD).sum(axis=0))
    return np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])


def decision_confidence(probabilities: DriftArray, multilabel: bool) -> DriftArray:
    """Return how probable what is predicted is (N,); with several labels the mean over them."""
    if multilabel:
        return np.asarray(np.maximum(probabilities, 1 - probabilities).mean(axis=1))
    return np.asarray(probabilities.max(axis=1))


def largest_share_changes(
    reference: DriftSample, new: DriftSample, labels: tuple[str, ...], multilabel: bool
) -> list[_Document]:
    """Return the classes whose share of the predictions has changed the most, with both shares."""
    both = [part.probabilities for part in (reference, new)]
    before, now = (predicted_counts(part, multilabel) / len(part) for part in both)
    order = np.argsort(-np.abs(now - before), kind="stable")[:_SHOWN]
    return [{"label": labels[k], "before": float(before[k]), "now": float(now[k])} for k in order]


def significant_shifts(shifts: Mapping[str, Shift]) -> list[str]:
    """Return the names of the shifts that chance alone would give in one of a hundred evaluations at most."""
    corrected = holm([shift.p for shift in shifts.values()])
    return [name for name, p in zip(shifts, corrected, strict=True) if p <= ALPHA]
