"""The end of a run, the same for all commands that make a model: what is written, published and shown, in order."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from rich.console import RenderableType

from finetune.config.settings.roots import TrainSettings
from finetune.data.table import ImageTable
from finetune.evaluation.bootstrap import metrics_document
from finetune.evaluation.calibrated import FinishedModel
from finetune.evaluation.explain.explain_run import explain_run
from finetune.evaluation.fairness.group_metrics import groups_document
from finetune.evaluation.fairness.partition import check_group_columns
from finetune.evaluation.ood import acceptance_document
from finetune.evaluation.predictions import Predictions
from finetune.models.bundle import save_bundle
from finetune.models.cost import cost
from finetune.report.run_page import attempt, write_report
from finetune.report.run_summary import end_summary, show_lines
from finetune.report.wandb_plots import publish
from finetune.runs.run import Run, write_json
from finetune.runs.wandb import Tracker
from finetune.runtime.device import accelerator_device
from finetune.training.regularizers import zeros


def finish_run(
    run: Run,
    settings: TrainSettings,
    model: FinishedModel,
    tracker: Tracker | None,
    started: float,
    *,
    note: Mapping[str, Any] = MappingProxyType({}),
    explains: bool = True,
    summary: Callable[[dict[str, Any]], RenderableType | None] = lambda document: None,
) -> None:
    """Write what a run leaves behind, hand it to the tracker, and show how good the model became.

    Args:
        run: The folder.
        settings: The run's.
        model: What the run ships.
        tracker: W&B's; None for none.
        started: When the run began, by `time.monotonic`.
        note: What else run.json is to hold.
        explains: Whether maps of some images are made.
        summary: What is shown before the scores, from metrics.json; None for nothing.
    """
    document = write_results(run, settings, model)
    run.update(**note)
    run.concluded = True  # as the page says; what follows changes nothing of its scores
    tested = model.calibrated.predictions["test"]
    if explains:
        explain = partial(
            explain_run, run.path, model.network, model.table.store, tested, settings.explain, settings.seed
        )
        attempt(explain, "Maps of what the network looks at")
    if settings.report:
        attempt(lambda: write_report(run), "The report")
    publish(settings.logger.wandb, document, tested, model.table, tracker)
    before = summary(document)
    if before is not None:
        show_lines(before)
    notes = [tracker.how_to_view] if tracker else []
    report = run.report_file if run.report_file.is_file() else None
    show_lines(end_summary(document, seconds=time.monotonic() - started, folder=run.path, notes=notes, report=report))


def partial_counts(predictions: Mapping[str, Predictions], table: ImageTable) -> dict[str, dict[str, int]]:
    """Return the splits of which not all images were predicted (`trainer.limit_batches`), with how many of how many."""
    counts = {split: {"n": found.num, "of": len(table.rows(split))} for split, found in predictions.items()}
    return {split: count for split, count in counts.items() if count["n"] < count["of"]}


def write_results(run: Run, settings: TrainSettings, model: FinishedModel) -> dict[str, Any]:
    """Write predictions, metrics with intervals, and the model that predict and export need; return the metrics."""
    predictions = model.calibrated.predictions
    for split, found in predictions.items():
        found.save(run.predictions_file(split))
    any_split, trainer = predictions["test"], settings.trainer
    document = metrics_document(predictions, resamples=settings.bootstrap, seed=settings.seed)
    if partial_splits := partial_counts(predictions, model.table):
        document["partial"] = partial_splits
    document["calibration"] = model.calibrated.document
    if model.detector is not None:
        document["ood"] = acceptance_document(model.detector, model.seen)
    groups = check_group_columns(settings.groups, list(map(str, any_split.groups.columns)))
    document["groups"] = groups_document(predictions, groups, resamples=settings.bootstrap, seed=settings.seed)
    document["model"] = cost(model.network, device=accelerator_device(trainer.accelerator), precision=trainer.precision)
    document["model"]["head_zeros"] = zeros(model.network.head)
    document |= model.facts
    write_json(run.metrics_file, document)
    scaling = model.calibrated.fitted.scaling
    save_bundle(model.network, any_split.labels, any_split.task, run.model_dir, scaling, model.detector)
    return document
