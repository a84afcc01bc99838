"""Confusion matrix, and the most confused pairs."""

import numpy as np

from finetune.evaluation.curves.confusion import ConfusionMatrix, confusion_matrix, label_counts, most_confused
from finetune.evaluation.predictions import Predictions
from finetune.report.figures.confusion_figure import confusion_figure
from finetune.report.html.blocks import Column, Section, Table, Text
from finetune.report.run_data import RunData
from finetune.report.sections.section_split import NAMES, about_split
from finetune.runtime.format import format_count

PAIRS = 30


@about_split
def confusion_section(_: RunData, split: str, predictions: Predictions) -> Section | None:
    """Show what is taken for what."""
    if predictions.multilabel:
        lead = f"How often each label is given rightly and wrongly on the {NAMES[split]} split, at a threshold of 0.5."
        return Section("confusion", "Confusion matrix", (_decisions(predictions),), lead)
    matrix = confusion_matrix(predictions)
    figure = confusion_figure(matrix)
    if not matrix.errors.any():
        text = Text(f"Nothing is confused: all {format_count(predictions.num)} are right.", "good")
        return Section("confusion", "Confusion matrix", (figure, text), "What is taken for what.")
    return Section("confusion", "Confusion matrix", (figure, _pairs(matrix)), _lead(matrix))


def _lead(matrix: ConfusionMatrix) -> str:
    errors = int(matrix.errors.sum())
    first = most_confused(matrix, 1)[0]
    sink = int(matrix.errors.sum(axis=0).argmax())
    taken = int(matrix.errors[:, sink].sum())
    text = (
        "What is taken for what. "
        f"The most frequent error is {first.true} taken for {first.predicted}: {format_count(first.count)}, "
        f"{first.share:.0%} of the class."
    )
    many = taken > first.count and errors > 1 and len(matrix.labels) > 2
    return f"{text} Of all {errors:,} errors, {taken:,} were taken for {matrix.labels[sink]}." if many else text


def _pairs(matrix: ConfusionMatrix) -> Table:
    columns = (
        *(Column("true"), Column("taken for"), Column("images")),
        Column("share", digits=3, bar=True, hint="of the images of the true class"),
        Column("the other way round", hint="images of the second class taken for the first"),
    )
    rows = tuple(tuple(vars(pair).values()) for pair in most_confused(matrix, PAIRS))
    pairs = int(np.count_nonzero(matrix.errors))
    caption = f"The first {PAIRS} of {pairs:,} pairs with an error." if pairs > PAIRS else ""
    return Table("Most confused pairs", columns, rows, caption)


def _decisions(predictions: Predictions) -> Table:
    columns = (
        Column("label"),
        Column("hits", hint="images with the label that are given it"),
        Column("false alarms", hint="images without the label that are given it"),
        Column("misses", hint="images with the label that are not given it"),
        Column("the rest", hint="images without the label that are not given it"),
    )
    rows = tuple(tuple(vars(row).values()) for row in label_counts(predictions))
    return Table("Decisions on each label", columns, rows)
