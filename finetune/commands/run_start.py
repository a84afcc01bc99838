"""The start of a run: its folder and configuration, its images, and the parts that training is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from finetune.audit.audit_store import audit_line, load_audit
from finetune.audit.drop_label_errors import drop_suspects
from finetune.config.resolve import resolve, resumed_settings
from finetune.config.settings.roots import PartsSettings, RootSettings, TrainSettings
from finetune.data.cache.store import Cache
from finetune.data.datamodule import ImageData
from finetune.data.table import ImageTable
from finetune.evaluation.explain.explain_run import check_explained
from finetune.evaluation.fairness.partition import check_group_columns
from finetune.models.network import Network
from finetune.report.console.start_console import describe_start
from finetune.report.run_summary import show_lines
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.runtime.log_filters import quieten
from finetune.search.autoconfig.recipe import Typed, record_choices, resolve_recipe
from finetune.search.autoconfig.rules import RecipeChoice
from finetune.search.study.trial_reports import trial_reports
from finetune.training.build import (
    build_callbacks,
    build_loggers,
    build_recipe,
    known_files,
    load_images,
    load_network,
    load_table,
    open_cache,
)
from finetune.training.callbacks.progress import PhaseProgressBar
from finetune.training.final_predictions import FinalizeSettings, read_finalize_settings
from finetune.training.fit import Recipe, rehearse
from finetune.training.freezing import check_batch_statistics
from finetune.training.run_lifecycle import check_command, is_first_rank

RootT = TypeVar("RootT", bound=RootSettings)


@dataclass(frozen=True)
class TrainingSetup:
    """All that a run of training needs, checked before anything of it is written.

    Attributes:
        run: The folder.
        settings: As typed, with what a recipe has chosen.
        resumed: Whether the run goes on.
        choices: What a recipe has chosen.
        whole: All images of the source.
        table: Those that are trained on and evaluated.
        cache: Where features and pixels are kept; None for nowhere.
        network: Before the first phase.
        recipe: Loss, optimizer, schedule and machine.
        images: The batches.
        callbacks: Makes the configured callbacks of a phase.
        loggers: Where values go besides the history and the tracker.
        finalize: What is done when all phases are over.
    """

    run: Run
    settings: TrainSettings
    resumed: bool
    choices: list[RecipeChoice]
    whole: ImageTable
    table: ImageTable
    cache: Cache | None
    network: Network
    recipe: Recipe
    images: ImageData
    callbacks: Callable[[], Sequence[Callback]]
    loggers: list[Logger]
    finalize: FinalizeSettings


def prepare(cfg: DictConfig) -> TrainingSetup:
    """Return all that a run of training needs; what cannot work is said here, before hours of training.

    Raises:
        ConfigError: A setting makes no sense, or not for these images.
        DataError: The images cannot be used.
    """
    quieten()
    resumed = cfg.resume is not None
    run, settings = locate_run(cfg, TrainSettings)
    pl.seed_everything(settings.seed, verbose=False)
    cache = open_cache(settings.cache)
    whole = load_table(settings.data, run.table_file, known_files(cache))
    # that of a continued run was chosen when it began
    settings, choices = (settings, []) if resumed else with_chosen_settings(settings, whole, cache)
    check_group_columns(settings.groups, whole.groups)
    finalize = read_finalize_settings(settings, whole)
    network = load_network(settings, whole)
    check_explained(network, settings.explain)
    table = drop_suspects(run, settings, whole, network, cache)
    recipe, images = build_training(settings, table, network, cache)
    callbacks = build_callbacks(settings.callbacks, PhaseProgressBar, *trial_reports())
    loggers = build_loggers(run, settings.logger)
    rehearse(network, settings.strategy, recipe, run.path, callbacks)
    return TrainingSetup(
        run, settings, resumed, choices, whole, table, cache, network, recipe, images, callbacks, loggers, finalize
    )


def locate_run(cfg: DictConfig, root: type[RootT]) -> tuple[Run, RootT]:
    """Return the run's folder, new or continued, and its settings; nothing is written yet."""
    hydra = HydraConfig.get()
    words = list(hydra.overrides.task)
    if cfg.resume is None:
        return Run(Path(hydra.runtime.output_dir)), resolve(cfg, root, words, tell=True)
    run = Run.open(Path(cfg.resume))
    check_command(run, str(cfg.verb))
    if is_first_rank():
        run.check_resumable()
    return run, resumed_settings(run.config, root, words)


def with_chosen_settings(
    settings: TrainSettings, table: ImageTable, cache: Cache | None
) -> tuple[TrainSettings, list[RecipeChoice]]:
    """Return the settings with what their recipe chooses, and the choices."""
    hydra = HydraConfig.get()
    keys = tuple(override.lstrip("+~").partition("=")[0].partition("@")[0] for override in hydra.overrides.task)

    def recompose(overrides: Sequence[str]) -> TrainSettings:
        typed = [*hydra.overrides.hydra, *hydra.overrides.task]
        found = compose(str(hydra.job.config_name), [*typed, *overrides])
        return resolve(found, TrainSettings, list(hydra.overrides.task))

    return resolve_recipe(settings, Typed(keys, dict(hydra.runtime.choices)), table, cache, recompose)


def build_training(
    settings: PartsSettings, table: ImageTable, network: Network, cache: Cache | None
) -> tuple[Recipe, ImageData]:
    """Return how a network is trained and the batches of images that it expects."""
    check_batch_statistics(network, settings.strategy.phases, settings.data.batch_size)
    recipe = build_recipe(settings, table, cache)
    recipe = replace(recipe, regularizer=recipe.regularizer.towards(network))
    return recipe, load_images(settings, table, network, cache)


def record_start(setup: TrainingSetup) -> None:
    """Note in the run's folder what it is made of, and show what is about to be trained."""
    run, whole = setup.run, setup.whole
    record_images(run, whole, left_out=len(whole) - len(setup.table))
    found = load_audit(setup.cache.folder, whole.fingerprint()) if setup.cache is not None else None
    if found is not None:
        run.update(audit=found)
        print(audit_line(found))
    record_choices(run, setup.choices)
    show_lines(describe_start(setup.settings, setup.table, setup.network, setup.recipe))


def record_images(run: Run, table: ImageTable, **facts: Any) -> None:
    """Store which images are in which split, and note their fingerprint and how many could not be read."""
    table.save(run.table_file)
    run.update(data={"fingerprint": table.fingerprint(), "unreadable": len(table.skipped), **facts})


def open_history(run: Run, step: int) -> RunHistory | None:
    """Return the run's history, cut back to the step where it goes on; None on all ranks but the first."""
    if not is_first_rank():
        return None
    history = RunHistory(run.history_file)
    history.truncate_after(step)
    return history
