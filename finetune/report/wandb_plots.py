"""The curves, the confusion matrix and the predictions of a run as W&B's own charts and tables.

The charts are those of `wandb.plot.roc_curve` and the like, filled by ourselves: these would draw at random which
points to keep, take the wrong column where a class has no image, and know no multi-label.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import wandb
from PIL import Image

from finetune.config.settings.run_groups import WandbSettings
from finetune.data.table import ImageTable
from finetune.evaluation.curves.averages import precision_recall_curves, roc_curves
from finetune.evaluation.curves.confusion import confusion_matrix, label_counts
from finetune.evaluation.curves.curve import simplify_curve
from finetune.evaluation.curves.threshold_counts import count_classes, count_pairs, reported_classes
from finetune.evaluation.metrics import image_losses
from finetune.evaluation.predictions import Predictions
from finetune.report.figures.lines_figure import Drawn, named_lines
from finetune.runs.checkpoint_scores import checkpoint_scores
from finetune.runs.wandb import Tracker

POINTS = 100  # of a line
_CLASSES = 50  # of a matrix
OTHERS = "(other classes)"


def charts_of(predictions: Predictions, split: str, *, rows: int) -> dict[str, Any]:
    """Return what is logged of a split: ROC, precision-recall, the matrix, and a table of at most `rows` images."""
    classes, decisions = count_classes(predictions), count_pairs(predictions)
    numbers, labels = reported_classes(predictions), predictions.labels
    roc = named_lines(roc_curves(classes, decisions), labels, numbers, steps=False)
    recall = named_lines(precision_recall_curves(classes, decisions), labels, numbers, steps=True)
    charts = {
        f"{split}/roc": line_chart(roc, "ROC", ("fpr", "False positive rate"), ("tpr", "True positive rate")),
        f"{split}/precision_recall": line_chart(
            recall, "Precision and recall", ("recall", "Recall"), ("precision", "Precision")
        ),
    }
    if predictions.multilabel:
        charts[f"{split}/decisions"] = decisions_table(predictions)
    else:
        charts[f"{split}/confusion_matrix"] = confusion_chart(predictions)
    return {**charts, f"{split}/predictions": predictions_table(predictions, rows)} if rows else charts


def line_chart(lines: Sequence[Drawn], title: str, x: tuple[str, str], y: tuple[str, str]) -> Any:
    """Return the chart that `wandb.plot.roc_curve` makes; an axis is the name of its column and what is written."""
    thinned = [(line.name, *simplify_curve(line.line, POINTS)) for line in lines]
    data: list[Iterable[Any]] = [
        [name, *point] for name, xs, ys in thinned for point in zip(xs.tolist(), ys.tolist(), strict=True)
    ]
    return wandb.plot_table(
        "wandb/area-under-curve/v0",
        wandb.Table(columns=["class", x[0], y[0]], data=data),
        {"x": x[0], "y": y[0], "class": "class"},
        {"title": title, "x-axis-title": x[1], "y-axis-title": y[1]},
    )


def confusion_chart(predictions: Predictions) -> Any:
    """Return the chart that `wandb.plot.confusion_matrix` makes; of many classes, those with the most errors."""
    matrix = confusion_matrix(predictions)
    size = len(matrix.labels)
    names, groups = list(matrix.labels), np.arange(size)
    if size > _CLASSES:
        errors = matrix.errors.sum(axis=0) + matrix.errors.sum(axis=1)
        kept = np.sort(np.argsort(-errors, kind="stable")[: _CLASSES - 1])
        groups = np.full(size, _CLASSES - 1)
        groups[kept] = np.arange(_CLASSES - 1)
        names = [*(matrix.labels[number] for number in kept), OTHERS]
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (groups[:, None], groups[None, :]), matrix.counts)
    columns: list[str | int] = ["Actual", "Predicted", "nPredictions"]
    data: list[Iterable[Any]] = [
        [names[row], names[column], int(counts[row, column])] for row, column in np.ndindex(*counts.shape)
    ]
    return wandb.plot_table(
        "wandb/confusion_matrix/v1",
        wandb.Table(columns=columns, data=data),
        {str(name): name for name in columns},
        {"title": "Confusion matrix"},
    )


def decisions_table(predictions: Predictions) -> wandb.Table:
    """Return hits, false alarms, misses and the rest of each label."""
    rows: list[Iterable[Any]] = [list(vars(row).values()) for row in label_counts(predictions)]
    return wandb.Table(columns=["label", "hits", "false alarms", "misses", "rest"], data=rows)


def predictions_table(predictions: Predictions, rows: int) -> wandb.Table:
    """Return id, label, predicted, probability, loss and groups of images: errors first, the highest loss on top.

    The probability is that of the predicted class, or of the least sure decision for multi-label.
    """
    losses = image_losses(predictions)
    order = np.lexsort((-losses, predictions.right))[:rows].tolist()
    # as text, since a column of a table has one type
    groups = predictions.groups.astype(object).where(predictions.groups.notna(), "").astype(str).to_numpy().tolist()
    names, sure = (predictions.label_names, predictions.predicted_names), predictions.confidence
    named = zip(predictions.ids, *names, sure, losses, strict=True)
    facts = [[str(name), label, guess, float(p), float(loss)] for name, label, guess, p, loss in named]
    data: list[Iterable[Any]] = [facts[k] + (groups[k] if groups else []) for k in order]
    known = ("id", "label", "predicted", "probability", "loss")
    columns: list[str | int] = [*known, *map(str, predictions.groups.columns)]
    return wandb.Table(columns=columns, data=data)


def gallery(images: Sequence[tuple[Image.Image, str]]) -> list[wandb.Image]:
    """Return images with their captions; only ever called when the user asked for it."""
    return [wandb.Image(image, caption=caption) for image, caption in images]


def publish(
    tracking: WandbSettings | None,
    document: dict[str, Any],
    predictions: Predictions,
    table: ImageTable,
    tracker: Tracker | None,
) -> None:
    """Hand scores, curves and predictions to the tracker, and the worst errors as images where the user asked."""
    if tracker is not None and tracking is not None:
        tracker.attempt("scores and charts", lambda: _publish(tracking, document, predictions, table, tracker))


def _publish(
    tracking: WandbSettings, document: dict[str, Any], predictions: Predictions, table: ImageTable, tracker: Tracker
) -> None:
    for split in [name for name in ("test", "val") if name in document]:
        scores = {f"best/val/{name}": value for name, value in checkpoint_scores(document, split).items()}
        if split == "test":
            ends = {"value": "", "low": "_low", "high": "_high"}
            scores = {f"test/{name}{end}": score[key] for key, end in ends.items()
                      for name, score in document[split].items()}  # fmt: skip
        tracker.log_summary(scores)
    for split, count in document.get("partial", {}).items():
        tracker.log_summary({f"partial/{split}": f"{count['n']} of {count['of']}"})
    tracker.log_summary({f"model/{name}": document["model"][name] for name in ("parameters", "latency_ms")})
    tracker.log_charts(charts_of(predictions, "test", rows=tracking.table))
    if tracking.images:
        tracker.log_charts({"test/worst_errors": gallery(worst_errors(predictions, table, tracking.images))})


def worst_errors(predictions: Predictions, table: ImageTable, number: int) -> list[tuple[Any, str]]:
    """Return the images that were predicted wrongly with the highest probability, with captions."""
    labels, guesses = predictions.label_names, predictions.predicted_names
    wrong = np.flatnonzero(~predictions.right).tolist()
    wrong.sort(key=lambda row: -float(predictions.probabilities[row].max()))
    captions = [f"{predictions.ids[row]}: {labels[row]}, predicted {guesses[row]}" for row in wrong[:number]]
    images = (table.store.read(str(predictions.paths[row]), 3) for row in wrong[:number])
    return list(zip(images, captions, strict=True))
