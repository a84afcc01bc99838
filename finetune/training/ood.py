"""At the end of a run: what tells images unlike those of training, from features that are mostly there already.

It decides which training images are looked at and that all ranks share the pass over them; the scores and the threshold
are those of `finetune.ood`.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from finetune.data.datamodule import ImageData
from finetune.training.classifier import Classifier
from finetune.training.fit import Recipe, predict_split
from finetune.uncertainty.ood.detector import Detector, FeaturesAndLogits, fit_detector
from finetune.uncertainty.ood.settings import OodSettings

TRAIN = "train"


def features_and_logits(outputs: Mapping[str, Tensor]) -> FeaturesAndLogits:
    """Return features and logits of those images of `predict_split` whose features were asked for."""
    chosen = np.isin(outputs["row"].numpy(), outputs["sampled"].numpy())
    return FeaturesAndLogits(outputs["features"].numpy(), outputs["logits"].numpy()[:, chosen])


def fit_ood(
    settings: OodSettings,
    classifier: Classifier,
    images: ImageData,
    recipe: Recipe,
    folder: Path,
    held_out: FeaturesAndLogits,
    *,
    cached: bool,
) -> Detector | None:
    """Return what tells images unlike those of training; all ranks share the images, and each gets the same.

    Where the backbone stood still its features of the training images are in the cache. Where it moved, a random choice
    of at most `settings.images` of them passes through it once, as evaluation sees them.
    """
    if settings.kind == "none":
        return None
    training = None
    if settings.fits_features:
        rows = chosen_rows(images.table.rows(TRAIN), settings.images)
        plain = replace(recipe, features=replace(recipe.features, test_views=1))
        found = predict_split(
            classifier, limited(images, rows), TRAIN, plain, folder, cached=cached, sample=rows
        )  # fmt: skip
        training = (found["features"].numpy(), found["target"].numpy())
    return fit_detector(settings, images.table.task, held_out, training)


def chosen_rows(rows: npt.NDArray[np.int64], limit: int) -> npt.NDArray[Any]:
    """Return all rows, or a random choice that is always the same, in order."""
    if len(rows) <= limit:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))


def limited(images: ImageData, rows: npt.NDArray[np.int64]) -> ImageData:
    """Return the same images, of which no others than the given rows are of the training split."""
    splits = images.table.frame["split"].to_numpy(object).copy()
    others = np.setdiff1d(images.table.rows(TRAIN), rows)
    splits[others] = None
    fewer = copy.copy(images)
    fewer.table = replace(images.table, frame=images.table.frame.assign(split=splits))
    return fewer
