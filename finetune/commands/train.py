"""The verb train: the story of a run, from a configuration to a classifier with a test score.

It is a composition root, the only code of training that sees a config; everything it calls takes typed arguments or
plain dictionaries.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from finetune.audit.audit_store import audit_line, recall
from finetune.audit.drop_label_errors import leave_out_suspects
from finetune.commands.run_end import publish, show_end, show_lines, write_extras, write_results
from finetune.commands.run_start import describe_start
from finetune.config.compose import resumed_config, to_dict
from finetune.data.cache.store import Cache
from finetune.data.datamodule import ImageData
from finetune.data.table import ImageTable
from finetune.evaluation.calibrated import Outputs, calibrate
from finetune.evaluation.drift.reference import SPLIT, sampled, save_reference
from finetune.evaluation.explain.explain_run import check_explained
from finetune.evaluation.fairness.partition import group_settings
from finetune.models.network import Network
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.runtime.allocator import keep_freed_memory
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
from finetune.training.callbacks.checkpoints import Checkpoints
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.callbacks.progress import PhaseProgressBar
from finetune.training.fit import Recipe, ResumePoint, build_classifier, find_resume_point, fit, predict_split, rehearse
from finetune.training.ood import features_and_logits, fit_ood
from finetune.training.phases import Strategy, build_strategy
from finetune.training.policies import resolve_words
from finetune.training.run_lifecycle import check_verb, is_first_rank, recorded
from finetune.training.trainer import trains_on_cpu
from finetune.training.weight_selection import SelectedWeights, check_shares, select_weights
from finetune.uncertainty.ood.detector import Detector, FeaturesAndLogits
from finetune.uncertainty.ood.settings import OodSettings, check_ood_settings
from finetune.uncertainty.scaling import Method, check_calibration_method

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> None:
    """Train a classifier as configured, score it on the test split and write its run folder."""
    started = time.monotonic()
    quieten()
    run, config = _locate_run(cfg)
    pl.seed_everything(config["seed"], verbose=False)
    cache = open_cache(config["cache"])
    whole = load_table(config["data"], run.table_file, known_files(cache))
    config, choices = _with_recipe(cfg, config, whole, cache)
    group_settings(config.get("groups"), whole.groups)  # a column that is not there is said before hours of training
    strategy = build_strategy(config["strategy"])
    ending = read_finalize_settings(config, whole)
    network = load_network(config, strategy, whole)
    check_explained(network, config.get("explain"))
    table = leave_out_suspects(run, config, whole, network, cache)
    recipe = build_recipe(config, table, cache)
    recipe = replace(recipe, regularizer=recipe.regularizer.towards(network))
    if trains_on_cpu(recipe.trainer):
        keep_freed_memory()
    images = load_images(config, table, network, cache)
    callbacks = build_callbacks(config["callbacks"] or {}, PhaseProgressBar, *trial_reports())
    loggers = build_loggers(run, config)
    rehearse(network, strategy, recipe, run.path, callbacks)
    with recorded(run, config, resume=cfg.resume is not None) as tracker:
        if is_first_rank():
            record_data(run, whole, left_out=len(whole) - len(table))
            record_audit(run, whole, cache)
            record_choices(run, choices)
            show_lines(describe_start(config, table, network, strategy, recipe))
        checkpoints = Checkpoints(run, config["monitor"], config["mode"])
        place = find_resume_point(run.last_checkpoint, checkpoints, network)
        history = _open_history(run, place)
        fit(
            network, strategy, images, recipe, place=place, checkpoints=checkpoints, callbacks=callbacks,
            metrics=MetricsCallback(table.task, table.num_classes, history, recipe.trainer.log_every),
            loggers=[*([tracker.logger] if tracker else []), *loggers],
        )  # fmt: skip
        kept = select_weights(run, network, strategy, images, recipe, mode=config["mode"], shares=ending.shares)
        best = predict_kept(run, network, kept, strategy, images, recipe, ending.unlike)
        if is_first_rank():
            record_kept(run, kept, config["monitor"])
            calibrated = calibrate(table, best.outputs, ending.method, config["seed"])
            document = write_results(run, config, network, calibrated, best.detector, best.seen)
            run.update(status="finished")  # as the page says; what follows changes nothing of it
            tested = calibrated.predictions["test"]
            write_extras(run, config, network, tested, table)
            publish(config, document, tested, table, tracker)
            show_end(run, document, tracker, time.monotonic() - started)


@dataclass(frozen=True)
class FinalizeSettings:
    """What is done when all phases are over.

    Attributes:
        method: How probabilities are calibrated.
        shares: Of the way from the probe to the fine-tuned weights that are tried on validation.
        unlike: What tells images unlike those of training.
    """

    method: Method
    shares: tuple[float, ...]
    unlike: OodSettings


def read_finalize_settings(config: dict[str, Any], table: ImageTable) -> FinalizeSettings:
    """Return what is done when all phases are over; a resumed run may be older than a setting.

    Raises:
        ConfigError: A setting makes no sense, or not for such labels.
    """
    unlike = check_ood_settings(OodSettings(**config.get("ood", {})), table.task)
    return FinalizeSettings(
        check_calibration_method(config.get("calibration", "none")), check_shares(config.get("interpolate", ())), unlike
    )


def _locate_run(cfg: DictConfig) -> tuple[Run, dict[str, Any]]:
    """Return the run's folder, new or continued, and its whole resolved configuration; nothing is written yet."""
    hydra = HydraConfig.get()
    if cfg.resume is None:
        return Run(Path(hydra.runtime.output_dir)), resolve_words(to_dict(cfg), list(hydra.overrides.task))
    run = Run.open(Path(cfg.resume))
    check_verb(run, "train")
    if is_first_rank():
        run.check_resumable()
    return run, resolve_words(to_dict(resumed_config(run.config, list(hydra.overrides.task))))


def _with_recipe(
    cfg: DictConfig, config: dict[str, Any], table: ImageTable, cache: Cache | None
) -> tuple[dict[str, Any], list[RecipeChoice]]:
    """Return the configuration with what its recipe chooses; that of a continued run was chosen when it began."""
    if cfg.resume is not None:
        return config, []
    hydra = HydraConfig.get()
    keys = tuple(override.lstrip("+~").partition("=")[0].partition("@")[0] for override in hydra.overrides.task)

    def recompose(overrides: Sequence[str]) -> dict[str, Any]:
        typed = [*hydra.overrides.hydra, *hydra.overrides.task]
        found = to_dict(compose(str(hydra.job.config_name), [*typed, *overrides]))
        return resolve_words(found, list(hydra.overrides.task))

    return resolve_recipe(config, Typed(keys, dict(hydra.runtime.choices)), table, cache, recompose)


def record_data(run: Run, table: ImageTable, *, left_out: int) -> None:
    """Store which images are in which split, their fingerprint, and how many of them training leaves out."""
    table.save(run.table_file)
    unreadable = len(table.skipped)
    run.update(data={"fingerprint": table.fingerprint(), "unreadable": unreadable, "left_out": left_out})


def record_audit(run: Run, table: ImageTable, cache: Cache | None) -> None:
    """Say what an audit of the very same images and splits has found, where there was one."""
    found = recall(cache.folder, table.fingerprint()) if cache is not None else None
    if found is not None:
        run.update(audit=found)
        print(audit_line(found))


def _open_history(run: Run, place: ResumePoint) -> RunHistory | None:
    """Return the run's history, cut back to where the run goes on; None on all ranks but the first."""
    if not is_first_rank():
        return None
    history = RunHistory(run.history_file)
    history.truncate_after(place.reached)
    return history


def record_kept(run: Run, kept: SelectedWeights, monitor: str) -> None:
    """Say and note which of probe, fine-tuned weights and those between the run ships, where it had to choose."""
    if kept.candidates:
        log.info("%s", kept.told(monitor))
        run.update(kept=kept.record())


@dataclass(frozen=True)
class SelectedPredictions:
    """What the weights that are kept make of the images.

    Attributes:
        outputs: Rows and logits, by split.
        seen: Features and logits of at most so many images of each split as a run keeps.
        detector: Tells images unlike those of training; None for none.
    """

    outputs: Outputs
    seen: dict[str, FeaturesAndLogits]
    detector: Detector | None


def predict_kept(
    run: Run,
    network: Network,
    kept: SelectedWeights,
    strategy: Strategy,
    images: ImageData,
    recipe: Recipe,
    unlike: OodSettings,
) -> SelectedPredictions:
    """Return what the weights that are kept say of the val and the test split; all ranks share the images.

    On the way the features that new images are compared with are kept, and what tells unlike images is fitted.
    """
    network.load_state_dict(kept.state)
    cached = strategy.phases[kept.phase].backbone_frozen and recipe.features.exact
    classifier = build_classifier(network, strategy.phases[-1], recipe, len(strategy.phases) - 1, ResumePoint())
    found, seen = {}, {}
    for split in ("val", "test"):
        sample = sampled(images.table.rows(split))
        outputs = predict_split(classifier, images, split, recipe, run.path, cached=cached, sample=sample)
        if split == SPLIT and is_first_rank():
            save_reference(run, outputs["sampled"].numpy(), outputs["features"].numpy())
        found[split] = (outputs["row"].numpy(), outputs["logits"].numpy())
        seen[split] = features_and_logits(outputs)
    detector = fit_ood(unlike, classifier, images, recipe, run.path, seen[SPLIT], cached=cached)
    return SelectedPredictions(found, seen, detector)
