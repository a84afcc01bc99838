"""Nested cross-validation: what varies is searched anew in each fold, on images that the fold learns from alone."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import optuna

from finetune.config.settings.data_groups import FoldSettings
from finetune.config.settings.roots import TrainSettings
from finetune.data.folds import Fold, crossval_pool, make_folds
from finetune.data.table import ImageTable, object_column
from finetune.ensembles.crossval.in_process import FoldResult, table_of, train_fold
from finetune.errors import FinetuneError, RunError
from finetune.search.spaces.sample_configs import TrialConfigs
from finetune.search.study.study import Search, TrialResult, create_study
from finetune.search.sweep_plan import SweepPlan
from finetune.training.head_trainer import HeadTrainer

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.ERROR)


class InnerSearch:
    """Searches settings for the images that one fold learns from."""

    def __init__(self, heads: HeadTrainer, plan: SweepPlan, table: ImageTable, inner: int) -> None:
        """Deal out the fold's images, train and val, to inner folds.

        Args:
            heads: Train heads on features in memory.
            plan: What varies, and how it is searched.
            table: The images of the fold.
            inner: How many inner folds.
        """
        self.heads = heads
        self.plan = plan
        self.metric = plan.settings.objectives[0].name.removeprefix("val/")
        pool = crossval_pool(table)
        splits = heads.settings.data.splits
        folds = make_folds(pool, FoldSettings("stratified", inner, 1, splits.seed), splits.group)
        splits_of = [object_column(["val" if held else "train" for held in fold.held.tolist()]) for fold in folds]
        self.tables = [replace(pool, frame=pool.frame.assign(split=each)) for each in splits_of]

    def run(self, number: int) -> tuple[str, ...]:
        """Return the best settings, as overrides.

        Args:
            number: Of the outer fold, by whose number the search is seeded.

        Raises:
            RunError: No trial came to its end.
        """
        settings = replace(self.plan.settings, seed=self.plan.settings.seed + number)
        storage = optuna.storages.InMemoryStorage()
        search = Search(
            create_study(storage, f"fold {number}", settings), storage, self.plan.space, settings, self.plan.trials
        )
        configs = TrialConfigs(self.plan.request, self.plan.space)
        cause = ""
        while (asked := search.ask()) is not None:
            try:
                result = TrialResult("complete", (self.value(configs.settings(asked.values)),))
            except FinetuneError as error:
                cause = str(error)
                result = TrialResult("failed", cause=cause)
            search.tell(asked.number, result)
        if not search.best():
            raise RunError(f"No trial of fold {number} came to its end: {cause}")
        best = search.best()[0]
        found = tuple(self.plan.space.overrides(search.values_of(best)))
        log.info("Fold %d: %s (%s %.4f in the mean of %d inner folds, best of %d trials).", number, " ".join(found),
                 settings.objectives[0].name, best.values[0], len(self.tables), len(search.trials()))  # fmt: skip
        return found

    def value(self, settings: TrainSettings) -> float:
        """Return the mean over the inner folds of the metric on the images that each holds out."""
        return float(np.mean([self.heads.val_scores(settings, table)[self.metric] for table in self.tables]))


def run_nested(heads: HeadTrainer, folds: list[Fold], plan: SweepPlan, inner: int) -> Iterator[FoldResult]:
    """Yield each fold as it is done: searched, then trained with the best settings."""
    for number, fold in enumerate(folds):
        settings = InnerSearch(heads, plan, table_of(heads, fold), inner).run(number)
        config = plan.request.trial([*plan.space.fixed, *settings])
        yield replace(train_fold(heads, number, fold, config), settings=settings)
