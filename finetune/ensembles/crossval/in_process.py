"""Folds in this process: one head after the other on features that are computed once."""

from collections.abc import Iterator
from dataclasses import dataclass

from finetune.config.compose import instantiate_target
from finetune.config.settings.roots import TrainSettings
from finetune.data.decoding import allow_megapixels
from finetune.data.folds import Fold, with_fold, without_fold
from finetune.data.sources.table_builder import require_classes
from finetune.data.table import ImageTable
from finetune.data.verification import verify_images
from finetune.evaluation.predictions import Predictions
from finetune.models.ensemble_network import Member
from finetune.training.build import known_files, open_cache
from finetune.training.head_trainer import HeadTrainer
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
    allow_megapixels(settings.data.max_megapixels)
    require_classes(table)
    data = settings.data
    return without_fold(verify_images(table, data.unreadable, known_files(cache), data.range_given), data.splits)


def table_of(trainer: HeadTrainer, fold: Fold) -> ImageTable:
    """Return the images of a fold, as a run by itself would have them."""
    splits = trainer.settings.data.splits
    return with_fold(trainer.table, fold, val=splits.val, seed=splits.seed, group=splits.group)


def train_fold(trainer: HeadTrainer, number: int, fold: Fold, settings: TrainSettings | None = None) -> FoldResult:
    """Train a fold's head, calibrate it on its val split, and let it predict the images that it has not seen."""
    settings, table = settings or trainer.settings, table_of(trainer, fold)
    network, recipe = trainer.fit(settings, table)
    views, multilabel, scaling = recipe.features.tta_views, table.task == "multilabel", Scaling()
    method = check_calibration_method(settings.calibration)
    if method != "none":
        val, targets = trainer.logits(network, table, "val", views), table.targets()[table.rows("val")]
        scaling = fit_scaling(val, targets, method, multilabel=multilabel, seed=settings.seed).scaling
    held = scaling.apply(trainer.logits(network, table, "test", views), multilabel=multilabel)
    predictions = Predictions.from_logits(table, table.rows("test"), held)
    return FoldResult(number, Member(network, scaling), predictions, int((fold.counts > 0).sum()))


def train_folds(trainer: HeadTrainer, folds: list[Fold]) -> Iterator[FoldResult]:
    """Yield each fold as it is done."""
    for number, fold in enumerate(folds):
        yield train_fold(trainer, number, fold)
