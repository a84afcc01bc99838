"""The verb train: the story of a run, from a configuration to a classifier with a test score.

It is a composition root, the only code of training that sees a config; everything it calls takes typed arguments or
plain dictionaries.
"""

import logging
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from finetune.audit.store import recall, told
from finetune.cache.spaces import Cache
from finetune.calibration.scaling import check_method
from finetune.config import resumed_config, to_dict
from finetune.data.datamodule import ImageData
from finetune.data.table import ImageTable
from finetune.evaluation.calibrated import Outputs, calibrate
from finetune.evaluation.groups.partition import group_settings
from finetune.evaluation.monitoring.reference import SPLIT, sampled, save_reference
from finetune.history import History
from finetune.memory import keep_freed_memory
from finetune.models.network import Network
from finetune.recipes.choices import Choice
from finetune.recipes.resolve import Typed, resolve_recipe
from finetune.report.results import publish, show, show_end, write_extras, write_results
from finetune.report.start import describe_start
from finetune.runs import PRUNED, Run
from finetune.search.study.reporting import Pruned, trial_reports
from finetune.strategies.phases import Strategy, build_strategy
from finetune.tracking import Tracker
from finetune.training.assembly import (
    build_callbacks,
    build_loggers,
    build_recipe,
    build_tracker,
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
from finetune.training.trainer import trains_on_cpu

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> None:
    """Train a classifier as configured, score it on the test split and write its run folder."""
    started = time.monotonic()
    quieten()
    run, config = locate_run(cfg)
    pl.seed_everything(config["seed"], verbose=False)
    cache = open_cache(config["cache"])
    table = load_table(config["data"], run.table_file, known_files(cache))
    config, choices = with_recipe(cfg, config, table, cache)
    group_settings(config.get("groups"), table.groups)  # a column that is not there is said before hours of training
    strategy = build_strategy(config["strategy"])
    method = check_method(config.get("calibration", "none"))  # a resumed run may be older than the setting
    shares = check_shares(config.get("interpolate", ()))
    network = load_network(config, strategy, table)
    recipe = build_recipe(config, table, cache)
    if trains_on_cpu(recipe.trainer):
        keep_freed_memory()
    images = load_images(config, table, network, cache)
    callbacks = build_callbacks(config["callbacks"] or {}, PhaseProgressBar, *trial_reports())
    loggers = build_loggers(run, config)
    rehearse(network, strategy, recipe, run.path, callbacks)
    with recorded(run, config, resume=cfg.resume is not None) as tracker:
        if is_first_rank():
            record_data(run, table)
            record_audit(run, table, cache)
            record_choices(run, choices)
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
        kept = choose_weights(run, network, strategy, images, recipe, mode=config["mode"], shares=shares)
        outputs = predict_kept(run, network, kept, strategy, images, recipe)
        if is_first_rank():
            record_kept(run, kept, config["monitor"])
            calibrated = calibrate(table, outputs, method, config["seed"])
            predictions = calibrated.predictions
            document = write_results(run, config, network, calibrated)
            run.update(status="finished")  # as the page says; what follows changes nothing of it
            write_extras(run, config, network, predictions["test"], table)
            publish(config, document, predictions["test"], table, tracker)
            show_end(run, document, tracker, time.monotonic() - started)


def is_first_rank() -> bool:
    """Return whether this process is the one that writes."""
    return int(rank_zero_only.rank) == 0  # type: ignore[attr-defined]


def locate_run(cfg: DictConfig) -> tuple[Run, dict[str, Any]]:
    """Return the run's folder, new or continued, and its whole resolved configuration; nothing is written yet."""
    hydra = HydraConfig.get()
    if cfg.resume is None:
        return Run(Path(hydra.runtime.output_dir)), to_dict(cfg)
    run = Run.open(Path(cfg.resume))
    if is_first_rank():
        run.check_resumable()
    return run, to_dict(resumed_config(run.config, list(hydra.overrides.task)))


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
        return to_dict(compose(str(hydra.job.config_name), [*typed, *overrides]))

    return resolve_recipe(config, Typed(keys, dict(hydra.runtime.choices)), table, cache, recompose)


def record_choices(run: Run, choices: Sequence[Choice]) -> None:
    """Say and note what the recipe has chosen and why; the values are in the configuration."""
    for choice in choices:
        log.info("%s", choice.told())
    if choices:
        run.update(recipe=[choice.record() for choice in choices])


def begin(run: Run, config: dict[str, Any], *, resume: bool) -> None:
    """Write the folder of a new run, or mark an interrupted one as running again."""
    if resume:
        run.continue_with(sys.argv)
    else:
        Run.create(run.path, config=config, command=sys.argv, seed=config["seed"])


@contextmanager
def recorded(run: Run, config: dict[str, Any], *, resume: bool) -> Iterator[Tracker | None]:
    """Record how the run ends, in its folder and in the tracker: finished, failed, interrupted or pruned.

    A SIGTERM ends the run like an interruption with exit code 143, so that the logs are complete; a pruned trial of a
    sweep ends here, without an evaluation, and that is no failure.
    """

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    if is_first_rank():
        begin(run, config, resume=resume)
    started = time.monotonic()
    previous = signal.signal(signal.SIGTERM, terminate)
    tracker = None
    status, code = "failed", 1
    try:
        if is_first_rank():
            tracker = build_tracker(run, config)
        yield tracker
        status, code = "finished", 0
    except Pruned as end:
        status, code = PRUNED, 0
        note_pruned(run, end, tracker)
    except (KeyboardInterrupt, SystemExit) as stop:
        status, code = "interrupted", exit_code(stop)
        raise SystemExit(code) from None
    finally:
        if is_first_rank():
            run.update(status=status, seconds=time.monotonic() - started + float(run.record.get("seconds") or 0))
            if tracker is not None:
                tracker.finish(code)
            if status == "interrupted":
                print(
                    f"finetune: Interrupted. Continue with: finetune resume={shlex.quote(str(run.path))}",
                    file=sys.stderr,
                )
        signal.signal(signal.SIGTERM, previous)


def note_pruned(run: Run, end: Pruned, tracker: Tracker | None) -> None:
    """Note in the folder and in the tracker where a trial was when it was ended; the first rank writes."""
    if is_first_rank():
        print(end)
        run.update(pruned=end.record)
        if tracker is not None:
            tracker.log_summary({"pruned": True})


def exit_code(stop: BaseException) -> int:
    """Return the exit code of an interrupted run; Lightning turns Ctrl-C into SystemExit(1)."""
    if isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt):
        return 130
    return stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 1


def record_data(run: Run, table: ImageTable) -> None:
    """Store which images are in which split, and their fingerprint."""
    table.save(run.table_file)
    run.update(data={"fingerprint": table.fingerprint(), "unreadable": len(table.skipped)})


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


def predict_kept(
    run: Run, network: Network, kept: Kept, strategy: Strategy, images: ImageData, recipe: Recipe
) -> Outputs:
    """Return what the weights that are kept say of the val and the test split; all ranks share the images.

    On the way the features that new images are compared with are kept.
    """
    network.load_state_dict(kept.state)
    cached = strategy.phases[kept.phase].at_rest and recipe.features.exact
    classifier = build_classifier(network, strategy.phases[-1], recipe, len(strategy.phases) - 1, Place())
    table = images.table
    found = {}
    for split in ("val", "test"):
        sample = sampled(table.rows(split)) if split == SPLIT else None
        outputs = predict_split(classifier, images, split, recipe, run.path, cached=cached, sample=sample)
        if sample is not None and is_first_rank():
            save_reference(run, outputs["sampled"].numpy(), outputs["features"].numpy())
        found[split] = (outputs["row"].numpy(), outputs["logits"].numpy())
    return found
