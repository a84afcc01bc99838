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

from finetune.audit.store import recall, told
from finetune.audit.suspects import leave_out_suspects
from finetune.cache.spaces import Cache
from finetune.calibration.scaling import Method, check_method
from finetune.config import resumed_config, to_dict
from finetune.data.datamodule import ImageData
from finetune.data.table import ImageTable
from finetune.evaluation.calibrated import Outputs, calibrate
from finetune.evaluation.groups.partition import group_settings
from finetune.evaluation.monitoring.reference import SPLIT, sampled, save_reference
from finetune.explain.run import check_explained
from finetune.history import History
from finetune.memory import keep_freed_memory
from finetune.models.network import Network
from finetune.ood.detector import Detector, Seen
from finetune.ood.settings import OodSettings, check_settings
from finetune.recipes.choices import Choice
from finetune.recipes.resolve import Typed, record_choices, resolve_recipe
from finetune.report.results import publish, show, show_end, write_extras, write_results
from finetune.report.start import describe_start
from finetune.runs import Run
from finetune.search.study.reporting import trial_reports
from finetune.strategies.phases import Strategy, build_strategy
from finetune.training.assembly import (
    build_callbacks,
    build_loggers,
    build_recipe,
    known_files,
    load_images,
    load_network,
    load_table,
    open_cache,
)
from finetune.training.checkpoints import Checkpoints
from finetune.training.fit import Place, Recipe, build_classifier, find_place, fit, predict_split, rehearse
from finetune.training.kept import Kept, check_shares, choose_weights
from finetune.training.metrics import MetricsCallback
from finetune.training.progress import PhaseProgressBar
from finetune.training.quiet import quieten
from finetune.training.recording import check_verb, is_first_rank, recorded
from finetune.training.trainer import trains_on_cpu
from finetune.training.unlike import fit_unlike, seen_of
from finetune.training.words.resolve import resolve_words

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> None:
    """Train a classifier as configured, score it on the test split and write its run folder."""
    started = time.monotonic()
    quieten()
    run, config = locate_run(cfg)
    pl.seed_everything(config["seed"], verbose=False)
    cache = open_cache(config["cache"])
    whole = load_table(config["data"], run.table_file, known_files(cache))
    config, choices = with_recipe(cfg, config, whole, cache)
    group_settings(config.get("groups"), whole.groups)  # a column that is not there is said before hours of training
    strategy = build_strategy(config["strategy"])
    ending = read_ending(config, whole)
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
            show(describe_start(config, table, network, strategy, recipe))
        checkpoints = Checkpoints(run, config["monitor"], config["mode"])
        place = find_place(run.last_checkpoint, checkpoints, network)
        history = open_history(run, place)
        fit(
            network, strategy, images, recipe, place=place, checkpoints=checkpoints, callbacks=callbacks,
            metrics=MetricsCallback(table.task, table.num_classes, history, recipe.trainer.log_every),
            loggers=[*([tracker.logger] if tracker else []), *loggers],
        )  # fmt: skip
        kept = choose_weights(run, network, strategy, images, recipe, mode=config["mode"], shares=ending.shares)
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
class Ending:
    """What is done when all phases are over.

    Attributes:
        method: How probabilities are calibrated.
        shares: Of the way from the probe to the fine-tuned weights that are tried on validation.
        unlike: What tells images unlike those of training.
    """

    method: Method
    shares: tuple[float, ...]
    unlike: OodSettings


def read_ending(config: dict[str, Any], table: ImageTable) -> Ending:
    """Return what is done when all phases are over; a resumed run may be older than a setting.

    Raises:
        ConfigError: A setting makes no sense, or not for such labels.
    """
    unlike = check_settings(OodSettings(**config.get("ood", {})), table.task)
    return Ending(check_method(config.get("calibration", "none")), check_shares(config.get("interpolate", ())), unlike)


def locate_run(cfg: DictConfig) -> tuple[Run, dict[str, Any]]:
    """Return the run's folder, new or continued, and its whole resolved configuration; nothing is written yet."""
    hydra = HydraConfig.get()
    if cfg.resume is None:
        return Run(Path(hydra.runtime.output_dir)), resolve_words(to_dict(cfg), list(hydra.overrides.task))
    run = Run.open(Path(cfg.resume))
    check_verb(run, "train")
    if is_first_rank():
        run.check_resumable()
    return run, resolve_words(to_dict(resumed_config(run.config, list(hydra.overrides.task))))


def with_recipe(
    cfg: DictConfig, config: dict[str, Any], table: ImageTable, cache: Cache | None
) -> tuple[dict[str, Any], list[Choice]]:
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
        print(told(found))


def open_history(run: Run, place: Place) -> History | None:
    """Return the run's history, cut back to where the run goes on; None on all ranks but the first."""
    if not is_first_rank():
        return None
    history = History(run.history_file)
    history.truncate_after(place.reached)
    return history


def record_kept(run: Run, kept: Kept, monitor: str) -> None:
    """Say and note which of probe, fine-tuned weights and those between the run ships, where it had to choose."""
    if kept.candidates:
        log.info("%s", kept.told(monitor))
        run.update(kept=kept.record())


@dataclass(frozen=True)
class Best:
    """What the weights that are kept make of the images.

    Attributes:
        outputs: Rows and logits, by split.
        seen: Features and logits of at most so many images of each split as a run keeps.
        detector: Tells images unlike those of training; None for none.
    """

    outputs: Outputs
    seen: dict[str, Seen]
    detector: Detector | None


def predict_kept(
    run: Run,
    network: Network,
    kept: Kept,
    strategy: Strategy,
    images: ImageData,
    recipe: Recipe,
    unlike: OodSettings,
) -> Best:
    """Return what the weights that are kept say of the val and the test split; all ranks share the images.

    On the way the features that new images are compared with are kept, and what tells unlike images is fitted.
    """
    network.load_state_dict(kept.state)
    cached = strategy.phases[kept.phase].at_rest and recipe.features.exact
    classifier = build_classifier(network, strategy.phases[-1], recipe, len(strategy.phases) - 1, Place())
    found, seen = {}, {}
    for split in ("val", "test"):
        sample = sampled(images.table.rows(split))
        outputs = predict_split(classifier, images, split, recipe, run.path, cached=cached, sample=sample)
        if split == SPLIT and is_first_rank():
            save_reference(run, outputs["sampled"].numpy(), outputs["features"].numpy())
        found[split] = (outputs["row"].numpy(), outputs["logits"].numpy())
        seen[split] = seen_of(outputs)
    detector = fit_unlike(unlike, classifier, images, recipe, run.path, seen[SPLIT], cached=cached)
    return Best(found, seen, detector)
