"""Out-of-distribution detector of a cross-validation whose folds share a frozen backbone."""

import logging

import numpy as np
import torch

from finetune.config.settings.roots import TrainSettings
from finetune.data.table import ImageTable
from finetune.evaluation.drift.reference import sample_rows
from finetune.features.extract import extract_features
from finetune.features.feature_datamodule import EVAL_BATCH
from finetune.models.ensemble_network import JoinedBackbone
from finetune.models.network import Network
from finetune.training.build import build_recipe, load_images, open_cache
from finetune.training.ood import fit_ood
from finetune.training.trainer import start_pass
from finetune.uncertainty.ood.detector import Detector, FeaturesAndLogits
from finetune.uncertainty.ood.settings import check_ood_settings

log = logging.getLogger(__name__)
LEFT_OUT = "ood=%s is left out: it would need the features of single images by one backbone that stood still."
HELD_OUT = 0.2  # share of the images that set the threshold, which need not be unknown to the heads


@torch.no_grad()
def fit_fold_ood(
    network: Network, table: ImageTable, run: TrainSettings
) -> tuple[Detector | None, dict[str, FeaturesAndLogits]]:
    """Return what tells images unlike those of training, and the images that set its threshold, as val.

    Of the images that folds are made of, at most `ood.images`, four fifths give the density and the others the
    threshold: to a backbone that stood still all of them are equally new. Without such a backbone, or with a kind that
    needs logits, which no image is new to, there is none.
    """
    settings = check_ood_settings(run.ood, table.task)
    if settings.kind == "none":
        return None, {}
    if isinstance(network.backbone, JoinedBackbone) or network.frames is not None or not settings.fits_features:
        log.info(LEFT_OUT, settings.kind)
        return None, {}
    pool = np.sort(np.concatenate([table.rows("train"), table.rows("val")]))
    rows = sample_rows(pool, settings.images)
    held = np.sort(np.random.default_rng(0).permutation(rows)[: max(1, round(HELD_OUT * len(rows)))])
    cache = open_cache(run.cache)
    recipe, images = build_recipe(run, table, cache), load_images(run, table, network, cache)
    found = extract_features(network, images, rows, recipe.features, start_pass(recipe.trainer))
    targets = table.targets()
    logits = torch.cat([network.head(part) for part in torch.split(found.take(held), EVAL_BATCH)])
    seen = FeaturesAndLogits(found.take(held).numpy(), logits.numpy())
    others = np.setdiff1d(rows, held)
    detector = fit_ood(settings, table.task, others, seen, lambda chosen: (found.take(chosen).numpy(), targets[chosen]))
    return detector, {"val": seen}
