"""Out-of-distribution detector of a run, fitted at its end on features that are mostly there already."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.config.settings.run_groups import OodSettings
from finetune.data.datamodule import ImageData
from finetune.data.table import LabelTask
from finetune.evaluation.drift.reference import sample_rows
from finetune.models.network import Network
from finetune.runtime.device import DevicePass
from finetune.training.fit import Recipe, predict_split
from finetune.uncertainty.ood.detector import Detector, FeaturesAndLogits, fit_detector

TRAIN = "train"
FeaturesAndTargets = tuple[npt.NDArray[np.float32], npt.NDArray[Any]]


def fit_ood(
    settings: OodSettings,
    task: LabelTask,
    rows: npt.NDArray[np.int64],
    held_out: FeaturesAndLogits,
    look: Callable[[npt.NDArray[np.int64]], FeaturesAndTargets],
) -> Detector | None:
    """Return what tells images unlike those of training; None where none is asked for.

    Args:
        settings: Which score, and of how many images at most.
        task: multiclass or multilabel.
        rows: Of training images, of which a random choice is looked at where there are too many.
        held_out: The images that set the threshold.
        look: Returns features (N, F) and targets of some rows; not called where the score needs none.
    """
    if settings.kind == "none":
        return None
    training = look(sample_rows(rows, settings.images)) if settings.fits_features else None
    return fit_detector(settings, task, held_out, training)


def features_and_targets(
    rows: npt.NDArray[np.int64],
    *,
    network: Network,
    images: ImageData,
    recipe: Recipe,
    device_pass: DevicePass,
    cached: bool,
) -> FeaturesAndTargets:
    """Return features (N, F) and targets of some training images, as evaluation sees them; all ranks share the images.

    Where the backbone stood still its features of the training images are in the cache.
    """
    plain = replace(recipe, features=replace(recipe.features, tta_views=1))
    found = predict_split(network, limited(images, rows), TRAIN, plain, device_pass, cached=cached, sample=rows)
    assert found.features is not None
    return found.features, found.targets


def limited(images: ImageData, rows: npt.NDArray[np.int64]) -> ImageData:
    """Return the same images, of which no others than the given rows are of the training split."""
    splits = images.table.frame["split"].to_numpy(object).copy()
    others = np.setdiff1d(images.table.rows(TRAIN), rows)
    splits[others] = None
    fewer = copy.copy(images)
    fewer.table = replace(images.table, frame=images.table.frame.assign(split=splits))
    return fewer
