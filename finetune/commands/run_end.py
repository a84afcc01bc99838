"""What a finished run leaves behind: predictions, metrics, the model, maps, a page, and its record in the tracker.

It decides the order and which part may fail without the run; what each part holds is the parts' own.
"""

import io
import logging
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.console import Console, RenderableType

from finetune.data.table import ImageTable
from finetune.evaluation.bootstrap import metrics_document
from finetune.evaluation.calibrated import Calibrated
from finetune.evaluation.explain.explain_run import explain_run
from finetune.evaluation.fairness.group_metrics import groups_document
from finetune.evaluation.fairness.partition import group_settings
from finetune.evaluation.ood import acceptance
from finetune.evaluation.predictions import Predictions
from finetune.models.bundle import save_bundle
from finetune.models.cost import cost
from finetune.models.network import Network
from finetune.report.run_page import attempt, write_report
from finetune.report.run_summary import end_summary, print_summary
from finetune.report.wandb_plots import charts_of, gallery
from finetune.runs.checkpoint_scores import checkpoint_scores
from finetune.runs.run import Run, write_json
from finetune.runs.wandb import Tracker
from finetune.training.regularizers import zeros
from finetune.training.trainer import device_of
from finetune.uncertainty.ood.detector import Detector, FeaturesAndLogits

log = logging.getLogger(__name__)
# goes to the run's train.log alone, since the screen shows the same in another form
_record = logging.getLogger("finetune.record")


def write_results(
    run: Run,
    config: dict[str, Any],
    network: Network,
    calibrated: Calibrated,
    detector: Detector | None = None,
    seen: Mapping[str, FeaturesAndLogits] = MappingProxyType({}),
    more: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write predictions, metrics with intervals, and the model that predict and export need.

    Args:
        run: The folder.
        config: The run's whole configuration.
        network: The finished network.
        calibrated: What it says.
        detector: Tells images unlike those of training; None for none.
        seen: Features and logits of some images, by split, on which the detector is judged.
        more: What else metrics.json is to hold.
    """
    predictions = calibrated.predictions
    for split, found in predictions.items():
        found.save(run.predictions_file(split))
    any_split, trainer = predictions["test"], config["trainer"]
    document = metrics_document(predictions, resamples=config["bootstrap"], seed=config["seed"])
    document["calibration"] = calibrated.document
    if detector is not None:
        document["ood"] = acceptance(detector, seen)
    settings = group_settings(config.get("groups"), list(map(str, any_split.groups.columns)))
    document["groups"] = groups_document(predictions, settings, resamples=config["bootstrap"], seed=config["seed"])
    document["model"] = cost(network, device=device_of(trainer["accelerator"]), precision=trainer["precision"])
    document["model"]["head_zeros"] = zeros(network.head)
    document |= more
    write_json(run.metrics_file, document)
    save_bundle(network, any_split.labels, any_split.task, run.model_dir, calibrated.fitted.scaling, detector)
    return document


def write_extras(
    run: Run, config: dict[str, Any], network: Network, predictions: Predictions, table: ImageTable
) -> None:
    """Write maps of some images and the page of a run; what fails is said, and the run is finished all the same."""
    make = partial(explain_run, run.path, network, table.store, predictions, config)
    attempt(make, "Maps of what the network looks at")
    if config.get("report"):
        attempt(lambda: write_report(run), "The report")


def publish(
    config: dict[str, Any],
    document: dict[str, Any],
    predictions: Predictions,
    table: ImageTable,
    tracker: Tracker | None,
) -> None:
    """Hand scores, curves and predictions to the tracker, and the worst errors as images where the user asked."""
    if tracker is None:
        return
    for split in [name for name in ("test", "val") if name in document]:
        scores = {f"{split}/{name}": score["value"] for name, score in document[split].items()}
        bounds = {
            f"{split}/{name}_{end}": score[end] for name, score in document[split].items() for end in ("low", "high")
        }
        tracker.log_summary(
            {**scores, **bounds}
            if split == "test"
            else {f"best/val/{name}": value for name, value in checkpoint_scores(document, split).items()}
        )
    tracker.log_summary({f"model/{name}": document["model"][name] for name in ("parameters", "latency_ms")})
    rows = config["logger"]["wandb"].get("table", 0)  # none in a resumed run that was begun without the setting
    tracker.log_charts(charts_of(predictions, "test", rows=rows))
    number = config["logger"]["wandb"]["images"]
    if number:
        tracker.log_charts({"test/worst_errors": gallery(worst_errors(predictions, table, number))})


def worst_errors(predictions: Predictions, table: ImageTable, number: int) -> list[tuple[Any, str]]:
    """Return the images that were predicted wrongly with the highest probability, with captions."""
    labels, guesses = predictions.label_names, predictions.predicted_names
    wrong = np.flatnonzero(~predictions.right).tolist()
    wrong.sort(key=lambda row: -float(predictions.probabilities[row].max()))
    return [
        (
            table.store.read(str(predictions.paths[row]), 3),
            f"{predictions.ids[row]}: {labels[row]}, predicted {guesses[row]}",
        )
        for row in wrong[:number]
    ]


def show_end(run: Run, document: dict[str, Any], tracker: Tracker | None, seconds: float) -> None:
    """Print the scores and what can be done with the run."""
    notes = [tracker.how_to_view] if tracker else []
    report = run.report_file if run.report_file.is_file() else None
    show_lines(end_summary(document, seconds=seconds, folder=run.path, notes=notes, report=report))


def show_lines(summary: RenderableType) -> None:
    """Print a summary, and keep it in the run's log."""
    print_summary(summary)
    plain = Console(file=io.StringIO(), width=120)
    print_summary(summary, plain)
    _record.info("\n%s", plain.file.getvalue().rstrip())  # type: ignore[attr-defined]
