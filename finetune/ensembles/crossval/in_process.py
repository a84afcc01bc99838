"""Folds in this process: one head after the other on features that are computed once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch

from finetune.config.compose import instantiate_target
from finetune.config.settings.roots import TrainSettings
from finetune.data.datamodule import view_keys
from finetune.data.folds import Fold, crossval_pool, with_fold, without_fold
from finetune.data.table import ImageTable
from finetune.data.verification import verify_images
from finetune.evaluation.predictions import Predictions
from finetune.features.cached_features import CachedFeatures, SequenceFeatures
from finetune.features.extract import FeatureSource
from finetune.features.feature_datamodule import FeatureData
from finetune.models.ensemble_network import Member
from finetune.models.heads.settings import head_settings
from finetune.models.network import Network, new_head
from finetune.training.build import build_recipe, known_files, load_images, load_network, open_cache
from finetune.training.fit import Recipe
from finetune.training.head_trainer import HeadTrainer
from finetune.training.trainer import start_pass
from finetune.uncertainty.scaling import Scaling, check_calibration_method, fit_scaling


@dataclass(frozen=True)
class FoldResult:
    """A fold that has been trained.

    Attributes:
        number: Its number.
        member: Its network.
        predictions: What it says of the images that it has not seen.
        learnt: How many images it has learnt from, those that chose its epoch among them.
        settings: What was searched for it, as overrides; none where nothing varies.
    """

    number: int
    member: Member
    predictions: Predictions
    learnt: int
    settings: tuple[str, ...] = ()


def read_table(settings: TrainSettings) -> ImageTable:
    """Return the images of a cross-validation, split as a run would split them."""
    cache = open_cache(settings.cache)
    table: ImageTable = instantiate_target(settings.data.source)
    return without_fold(verify_images(table, settings.data.unreadable, known_files(cache)), settings.data.splits)


class FoldHeadTrainer:
    """The images, the backbone and the features that all folds share."""

    def __init__(self, settings: TrainSettings, table: ImageTable) -> None:
        """Compute the features of all images that folds are made of; those in the cache are not computed again."""
        pl.seed_everything(settings.seed, verbose=False)
        self.settings = settings
        self.cache = open_cache(settings.cache)
        self.pool = crossval_pool(table)
        self.splits = settings.data.splits
        self.network: Network = load_network(settings, self.pool)
        recipe = build_recipe(settings, self.pool, self.cache)
        images = load_images(settings, self.pool, self.network, self.cache)
        source = FeatureSource(self.network, images, recipe.features, start_pass(recipe.trainer))
        rows = np.arange(len(self.pool))
        self.features = source.features(rows, max(recipe.features.views, recipe.features.tta_views))
        paths = self.pool.frame["path"].tolist()
        self.digests = dict(zip(paths, images.digests(rows), strict=True))
        self.places = dict(zip(paths, rows.tolist(), strict=True))
        self.network.cpu()

    def table_of(self, fold: Fold) -> ImageTable:
        """Return the images of a fold, as a run by itself would have them."""
        return with_fold(self.pool, fold, val=self.splits.val, seed=self.splits.seed, group=self.splits.group)

    def run(self, number: int, fold: Fold, settings: TrainSettings | None = None) -> FoldResult:
        """Train a fold's head and let it predict the images that it has not seen."""
        settings = settings or self.settings
        table = self.table_of(fold)
        network, recipe = self.fit(settings, table)
        member, predictions = self.predict(network, table, recipe, settings)
        return FoldResult(number, member, predictions, int((fold.counts > 0).sum()))

    def fit(self, settings: TrainSettings, table: ImageTable) -> tuple[Network, Recipe]:
        """Return a network whose head was trained on a table's train split, with its epoch chosen on val."""
        pl.seed_everything(settings.seed, verbose=False)
        recipe = build_recipe(settings, table, self.cache)
        images = load_images(settings, table, self.network, self.cache)
        data = FeatureData(images, batch_size=recipe.head_batch_size, seed=recipe.seed, settings=recipe.features)
        data.found = {
            "train": self.of(table, "train", recipe.features.views),
            "val": self.of(table, "val", recipe.features.tta_views),
        }
        spec = head_settings(settings.head, seed=settings.seed)[0]
        fresh = self.network
        network = Network(
            fresh.backbone, new_head(spec, fresh.num_features, fresh.num_classes), name=fresh.name, spec=fresh.spec,
            num_features=fresh.num_features, num_classes=fresh.num_classes,
            options=fresh.options | {"head": vars(spec)}, frames=fresh.frames,
        )  # fmt: skip
        HeadTrainer(network, data).fit(settings.strategy, recipe, mode=settings.mode)
        return network.eval(), recipe

    def of(self, table: ImageTable, split: str, views: int) -> CachedFeatures:
        """Return the features of a split of a fold's images, found by their content."""
        rows = table.rows(split)
        paths = table.frame["path"].iloc[rows].tolist()
        if isinstance(self.features, SequenceFeatures):
            return self.features.renumbered(rows, [self.places[path] for path in paths], views)
        digests = [self.digests[path] for path in paths]
        return CachedFeatures(rows, [view_keys(digests, view) for view in range(views)], self.features.entries[:views])

    @torch.no_grad()
    def logits(self, network: Network, table: ImageTable, split: str, views: int) -> npt.NDArray[np.float32]:
        """Return what a head says of a split (V, N, K), in each view."""
        found = self.of(table, split, views)
        parts = [network.head(found.take(found.rows, np.full(len(found.rows), view))) for view in range(views)]
        return np.asarray(torch.stack(parts).numpy(), np.float32)

    def predict(
        self, network: Network, table: ImageTable, recipe: Recipe, settings: TrainSettings
    ) -> tuple[Member, Predictions]:
        """Return a fold's network as a member, calibrated on its val split, and its predictions of held-out images."""
        views, multilabel = recipe.features.tta_views, table.task == "multilabel"
        targets, rows = table.targets(), table.rows("val")
        method = check_calibration_method(settings.calibration)
        scaling = Scaling()
        if method != "none":
            val = self.logits(network, table, "val", views)
            scaling = fit_scaling(val, targets[rows], method, multilabel=multilabel, seed=settings.seed).scaling
        held = scaling.apply(self.logits(network, table, "test", views), multilabel=multilabel)
        return Member(network, scaling), Predictions.from_logits(table, table.rows("test"), held)


def train_folds(heads: FoldHeadTrainer, folds: list[Fold]) -> Iterator[FoldResult]:
    """Yield each fold as it is done."""
    for number, fold in enumerate(folds):
        yield heads.run(number, fold)
