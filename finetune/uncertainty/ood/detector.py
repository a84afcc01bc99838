"""Out-of-distribution detector: a score, and the threshold above which an image is called unlike."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from finetune.config.settings.run_groups import OodSettings
from finetune.data.table import LabelTask
from finetune.errors import ConfigError
from finetune.runs.run import replacing
from finetune.uncertainty.ood.densities import (
    DENSITIES,
    Components,
    Density,
    DensityArray,
    Features64,
    fit_density,
)
from finetune.uncertainty.ood.logit_scores import energy, msp
from finetune.uncertainty.ood.settings import NONE, OF_FEATURES

_VERSION = 1
NAME = "ood.safetensors"
FACTS = "ood"


@dataclass(frozen=True, eq=False)
class FeaturesAndLogits:
    """What a network makes of N images.

    Attributes:
        features: (N, F), pooled, in the first view; None where nobody asked for them.
        logits: (N, K), or (V, N, K) in several views, before calibration.
    """

    features: Features64 | None
    logits: Features64


@dataclass(frozen=True, eq=False)
class Detector:
    """Tells images unlike those of training.

    Attributes:
        kind: mahalanobis, knn, pca, energy or msp.
        task: multiclass or multilabel.
        threshold: The largest score of an image that is not called unlike.
        accept: Share of held-out images that the threshold was set to accept.
        fitted_on: Training images behind the density; 0 where logits are enough.
        held_out: Validation images behind the threshold.
        density: Of features; None where logits are enough.
    """

    kind: str
    task: LabelTask
    threshold: float
    accept: float
    fitted_on: int
    held_out: int
    density: Density | None = None

    @property
    def needs_features(self) -> bool:
        """Whether features have to be given."""
        return self.density is not None

    def score(self, seen: FeaturesAndLogits) -> DensityArray:
        """Return how unlike the training images each image is (N,); higher is more unlike."""
        if self.density is None:
            return logit_score(self.kind, seen.logits, self.task)
        assert seen.features is not None
        return self.density.score(seen.features)

    def is_ood(self, scores: DensityArray) -> npt.NDArray[np.bool_]:
        """Return which of some scores (N,) are those of images that are called unlike the training images."""
        return np.asarray(scores > self.threshold)

    def reduce(self, features: Features64, count: int) -> DensityArray:
        """Return the first coordinates (N, count) of features (N, F) along the directions of most variance."""
        assert isinstance(self.density, Components)
        return self.density.reduce(features)[:, :count]

    def document(self) -> dict[str, Any]:
        """Return the facts as plain JSON."""
        return {
            "kind": self.kind, "threshold": self.threshold, "accept": self.accept, "fitted_on": self.fitted_on,
            "held_out": self.held_out,
        }  # fmt: skip


def fit_detector(
    settings: OodSettings, task: LabelTask, held_out: FeaturesAndLogits, training: tuple[Features64, Any] | None
) -> Detector:
    """Return what tells images unlike those of training.

    The density is fitted on training images, of which there are most, and the threshold is set on held-out validation
    images: a network's features of images that it was trained on are closer together than those of new ones, so that
    a threshold from them would call too many new images unlike.

    Args:
        settings: Checked.
        task: multiclass or multilabel.
        held_out: Validation images.
        training: Features (M, F) and targets of training images; None where logits are enough.
    """
    density, fitted_on = None, 0
    if settings.fits_features:
        assert training is not None
        density, fitted_on = fit_density(*training, settings, task), len(training[0])
    count = held_out.logits.shape[-2]
    found = Detector(settings.kind, task, math.inf, settings.tpr, fitted_on, count, density)
    threshold = acceptance_threshold(found.score(held_out), settings.tpr)
    return Detector(settings.kind, task, threshold, settings.tpr, fitted_on, count, density)


def acceptance_threshold(scores: DensityArray, accept: float) -> float:
    """Return the least threshold that a new image, drawn like those of the scores (N,), is not above with `accept`.

    Where there are too few scores to promise that, it is the highest of them.

    Source: Bates et al. 2023, Testing for outliers with conformal p-values, section 2.2.
    """
    place = min(math.ceil((len(scores) + 1) * accept - 1e-9), len(scores))  # a product may be a hair above a whole
    return float(np.sort(scores)[place - 1])


def can_guarantee(number: int, accept: float) -> bool:
    """Return whether so many held-out images are enough to promise that share."""
    return math.ceil((number + 1) * accept - 1e-9) <= number


def logit_score(kind: str, logits: Features64, task: LabelTask) -> DensityArray:
    """Return the score (N,) that logits (N, K) give, or its mean over views (V, N, K)."""
    views = logits if logits.ndim == 3 else logits[None]
    score = (lambda view: energy(view, task)) if kind == "energy" else msp
    return np.asarray(np.mean([score(view) for view in views], axis=0))


def check_components(detector: Detector | None, count: int) -> int:
    """Return how many coordinates of each image are wanted, which a detector has to know.

    Raises:
        ConfigError: It does not.
    """
    if not count:
        return 0
    density = None if detector is None else detector.density
    if not isinstance(density, Components):
        kind = NONE if detector is None else detector.kind
        raise ConfigError(f"components={count} needs a run trained with ood=pca; this one has ood={kind}.")
    available = len(density.directions)
    if not 1 <= count <= available:
        raise ConfigError(f"components={count} is not there: the run keeps {available}. Use 1 to {available}.")
    return count


def save_detector(detector: Detector | None, folder: Path) -> None:
    """Write the file of a bundle; without a detector, one that is there is removed."""
    if detector is None:
        (folder / NAME).unlink(missing_ok=True)
        return
    facts = {"version": _VERSION, "task": detector.task, **detector.document()}
    arrays: dict[str, npt.NDArray[Any]] = {} if detector.density is None else vars(detector.density)
    with replacing(folder / NAME) as temporary:
        save_file({name: each.copy(order="C") for name, each in arrays.items()}, temporary, {FACTS: json.dumps(facts)})


def load_detector(folder: Path) -> Detector | None:
    """Return the detector of a bundle, or None where it has none.

    Raises:
        KeyError, ValueError, TypeError, SafetensorError: The file is damaged.
    """
    from safetensors import safe_open

    file = folder / NAME
    if not file.is_file():
        return None
    with safe_open(file, "numpy") as opened:
        facts = json.loads((opened.metadata() or {})[FACTS])
    if facts.pop("version") != _VERSION:
        raise ValueError(f"{NAME} has another version than {_VERSION}")
    density = DENSITIES[facts["kind"]](**load_file(file)) if facts["kind"] in OF_FEATURES else None
    return Detector(**facts, density=density)
