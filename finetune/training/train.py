"""The verb train: the story of a run, from a configuration to a classifier with a test score.

It is a composition root, the only code of training that sees a config; everything it calls takes typed arguments or
plain dictionaries.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from finetune.audit.store import recall, told
from finetune.audit.suspects import leave_out_suspects
from finetune.cache.spaces import Cache
from finetune.calibration.scaling import check_method
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
from finetune.training.checkpoints import Checkpoints, network_state, read_checkpoint
from finetune.training.fit import Place, Recipe, build_classifier, find_place, fit, predict_split, rehearse
from finetune.training.metrics import MetricsCallback
from finetune.training.progress import PhaseProgressBar
from finetune.training.quiet import quieten
from finetune.training.recording import check_verb, is_first_rank, recorded
from finetune.training.trainer import trains_on_cpu
from finetune.training.unlike import fit_unlike, seen_of
from finetune.training.words.resolve import resolve_words


def train(cfg: DictConfig) -> None:
    """Train a classifier as configured, score it on the test split and write its run folder."""
    started = time.monotonic()
    quieten()
    run, config = locate_run(cfg)
    pl.seed_everything(config["seed"], verbose=False)
    cache = open_cache(config["cache"])
    whole = load_table(config["data"], run.table_file, known_files(cache))
    group_settings(config.get("groups"), whole.groups)  # a column that is not there is said before hours of training
    strategy = build_strategy(config["strategy"])
    method = check_method(config.get("calibration", "none"))  # a resumed run may be older than the setting
    unlike = check_settings(OodSettings(**config.get("ood", {})), whole.task)  # likewise
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
            show(describe_start(config, table, network, strategy, recipe))
        checkpoints = Checkpoints(run, config["monitor"], config["mode"])
        place = find_place(run.last_checkpoint, checkpoints, network)
        fit(
            network,
            strategy,
            images,
            recipe,
            place=place,
            metrics=MetricsCallback(table.task, table.num_classes, open_history(run, place), recipe.trainer.log_every),
            checkpoints=checkpoints,
            callbacks=callbacks,
            loggers=[*([tracker.logger] if tracker else []), *loggers],
        )
        best = predict_best(run, network, strategy, images, recipe, unlike)
        if is_first_rank():
            calibrated = calibrate(table, best.outputs, method, config["seed"])
            predictions = calibrated.predictions
            document = write_results(run, config, network, calibrated, best.detector, best.seen)
            run.update(status="finished")  # as the page says; what follows changes nothing of it
            write_extras(run, config, network, predictions["test"], table)
            publish(config, document, predictions["test"], table, tracker)
            show_end(run, document, tracker, time.monotonic() - started)


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


@dataclass(frozen=True)
class Best:
    """What the best epoch's weights make of the images.

    Attributes:
        outputs: Rows and logits, by split.
        seen: Features and logits of at most so many images of each split as a run keeps.
        detector: Tells images unlike those of training; None for none.
    """

    outputs: Outputs
    seen: dict[str, Seen]
    detector: Detector | None


def predict_best(
    run: Run, network: Network, strategy: Strategy, images: ImageData, recipe: Recipe, unlike: OodSettings
) -> Best:
    """Return what the best epoch's weights say of the val and the test split; all ranks share the images.

    On the way the features that new images are compared with are kept, and what tells unlike images is fitted.
    """
    checkpoint = read_checkpoint(run.best_checkpoint)
    network.load_state_dict(network_state(checkpoint, averaged=True))
    cached = strategy.phases[checkpoint["finetune"]["phase"]].at_rest and recipe.features.exact
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
