"""finetune train: the story of a run, from a configuration to a classifier with a test score."""

import logging
import time

from omegaconf import DictConfig

from finetune.commands.run_end import finish_run
from finetune.commands.run_start import TrainingSetup, open_history, prepare, record_start
from finetune.evaluation.calibrated import FinishedModel, calibrate
from finetune.runs.wandb import Tracker
from finetune.runtime.device import DevicePass
from finetune.training.callbacks.checkpoints import Checkpoints
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.final_predictions import predict_final
from finetune.training.fit import fit
from finetune.training.resume import find_resume_point
from finetune.training.run_lifecycle import is_first_rank, record_outcome
from finetune.training.trainer import start_pass
from finetune.training.weight_selection import SelectedWeights, select_weights

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> None:
    """Train a classifier as configured, score it on the test split and write its run folder."""
    started = time.monotonic()
    setup = prepare(cfg)
    with record_outcome(setup.run, setup.settings, resume=setup.resumed) as tracker:
        if is_first_rank():
            record_start(setup)
        fit_phases(setup, tracker)
        device_pass = start_pass(setup.recipe.trainer, join=True)
        selected = select_best_weights(setup, device_pass)
        final = predict_final(
            setup.run, setup.network, selected, setup.settings.strategy, setup.images, setup.recipe, device_pass,
            setup.finalize.ood,
        )  # fmt: skip
        if is_first_rank():
            calibrated = calibrate(setup.table, final.outputs, setup.finalize.calibration, setup.settings.seed)
            model = FinishedModel(setup.network, calibrated, setup.table, final.detector, final.seen)
            finish_run(setup.run, setup.settings, model, tracker, started)


def fit_phases(setup: TrainingSetup, tracker: Tracker | None) -> None:
    """Train the phases that are left, from where an interrupted run goes on."""
    checkpoints = Checkpoints(setup.run, setup.settings.monitor, setup.settings.mode)
    place = find_resume_point(checkpoints, setup.network, setup.settings.strategy, setup.recipe.optimizer)
    history = open_history(setup.run, place.reached)
    table = setup.table
    fit(
        setup.network, setup.settings.strategy, setup.images, setup.recipe, place=place, checkpoints=checkpoints,
        metrics=MetricsCallback(table.task, table.num_classes, history, setup.recipe.trainer.log_every),
        callbacks=setup.callbacks, loggers=[*([tracker.logger] if tracker else []), *setup.loggers],
    )  # fmt: skip


def select_best_weights(setup: TrainingSetup, device_pass: DevicePass) -> SelectedWeights:
    """Return the weights that the run ships; where it had to choose, say and note which."""
    selected = select_weights(
        setup.run, setup.network, setup.settings.strategy, setup.images, setup.recipe, device_pass,
        mode=setup.settings.mode, shares=setup.finalize.shares,
    )  # fmt: skip
    if selected.candidates and is_first_rank():
        log.info("%s", selected.summary_line(setup.settings.monitor))
        setup.run.update(kept=selected.record())
    return selected
