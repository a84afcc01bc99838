"""Guarantees for new images: sets that hold the true label, and answers that need no second look."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.errors import ConfigError
from finetune.evaluation.predictions import SEPARATOR, Predictions, PredictionTask, confidence_of
from finetune.runs.run import Run
from finetune.uncertainty.conformal import Conformal, fit_conformal
from finetune.uncertainty.selective import ConfidenceThreshold, accuracy_threshold

_SPLIT = "val"
ACCEPTED, REFER = "accepted", "refer"
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Guarantees:
    """What a table of predictions says beside them.

    Attributes:
        conformal: How the set of an image is made; None for no sets.
        threshold: From which confidence on an answer is accepted; None for no decisions.
    """

    conformal: Conformal | None = None
    threshold: ConfidenceThreshold | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, all of text."""
        wanted = (("set", self.conformal), ("decision", self.threshold))
        return tuple(name for name, value in wanted if value is not None)

    def cells(self, probabilities: Probabilities, labels: Sequence[str], task: PredictionTask) -> dict[str, str]:
        """Return the cells of an image with probabilities (K,)."""
        found = {}
        if self.conformal is not None:
            chosen = self.conformal.sets(probabilities[None].astype(np.float64))[0]
            found["set"] = SEPARATOR.join(labels[number] for number in np.flatnonzero(chosen).tolist())
        if self.threshold is not None:
            sure = confidence_of(probabilities[None], task)[0] >= self.threshold.value
            found["decision"] = ACCEPTED if sure else REFER
        return found


def guarantees_of(run: Run, coverage: float | None, target_accuracy: float | None) -> tuple[Guarantees, list[str]]:
    """Return what can be promised by the run's validation predictions, and sentences that say it.

    Raises:
        ConfigError: A number makes no sense, or the validation split cannot back the promise.
    """
    if coverage is None and target_accuracy is None:
        return Guarantees(), []
    if not run.predictions_file(_SPLIT).is_file():
        raise ConfigError(
            f"{run.path} has no validation predictions, which coverage and target_accuracy need. Name a finished run."
        )
    known = Predictions.load(run.predictions_file(_SPLIT))
    sets, threshold, told = None, None, []
    if coverage is not None:
        if known.multilabel:
            raise ConfigError(
                "coverage= makes sets of labels for one label per image; this run predicts several. Leave it out."
            )
        sets = fit_conformal(known.probabilities.astype(np.float64), known.targets, coverage)
        told.append(
            f"The column set holds the true label of at least {sets.coverage:.6g} of images like the {known.num:,} "
            "validation images (conformal prediction)."
        )
    if target_accuracy is not None:
        threshold = accuracy_threshold(known.confidence, known.right, target_accuracy)
        if not threshold.coverage:
            raise ConfigError(
                f"target_accuracy={target_accuracy:g} cannot be promised by {known.num:,} validation images: no "
                "confidence leaves so few errors for certain. Use a lower one, or train with more of them "
                "(data.splits.val)."
            )
        told.append(
            f"The column decision accepts confidences from {threshold.value:.4f} on: {threshold.coverage:.1%} of the "
            f"validation images, {threshold.accuracy:.4f} of them right, and of new ones at least "
            f"{threshold.bound:.4f} with 95 % confidence."
        )
    return Guarantees(sets, threshold), told


def check_guarantee_views(views: int, own: int) -> None:
    """Refuse promises about images in other views than the validation images were seen in.

    Raises:
        ConfigError: The views differ.
    """
    if views != own:
        raise ConfigError(
            f"views={views} with coverage or target_accuracy needs validation predictions in as many views, and the "
            f"run's are of views={own}. Leave views out."
        )
