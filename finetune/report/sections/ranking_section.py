"""ROC, precision-recall, cumulative gains and lift: how well probabilities rank images."""

import numpy as np

from finetune.evaluation.curves.averages import Curves, precision_recall_curves, roc_curves
from finetune.evaluation.curves.gains import Gains, cumulative_gains
from finetune.evaluation.curves.threshold_counts import count_class, count_classes, count_pairs, reported_classes
from finetune.evaluation.predictions import Predictions
from finetune.report.figures.lines_figure import gains_figure, lift_figure, precision_recall_figure, roc_figure
from finetune.report.figures.short_names import outstanding
from finetune.report.html.blocks import Block, Cell, Column, Section, Table, Text
from finetune.report.run_data import RunData
from finetune.report.sections.section_split import NAMES, about_split
from finetune.runtime.format import known, listed

_SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)


@about_split
def ranking_section(_: RunData, split: str, predictions: Predictions) -> Section | None:
    """Show ROC and precision-recall curves of the outstanding classes and on average."""
    classes, decisions = count_classes(predictions), count_pairs(predictions)
    roc, recall = roc_curves(classes, decisions), precision_recall_curves(classes, decisions)
    numbers, labels = reported_classes(predictions), predictions.labels
    blocks: list[Block] = []
    if any(roc.classes[number] is not None for number in numbers):
        blocks.append(roc_figure(roc, labels, numbers))
    if any(recall.classes[number] is not None for number in numbers):
        blocks.append(precision_recall_figure(recall, labels, numbers))
    missing = [labels[number] for number in numbers if roc.classes[number] is None]
    if missing:
        where = f"the {NAMES[split]} split"
        blocks.append(Text(f"No ROC curve, since {where} has none or nothing but of it: {listed(missing)}.", "warning"))
    if len(numbers) > 1:
        blocks.append(_averages(roc, recall))
        lead = (
            "How well classes are told apart: each against all others, whatever the threshold. Few classes are named: "
            "the weakest and the best."
        )
    else:
        lead = f"How well probabilities of {labels[1]} tell it from {labels[0]}, whatever the threshold."
    return Section("ranking", "ROC and precision-recall", tuple(blocks), lead)


def _averages(roc: Curves, recall: Curves) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (name, *(known(curve.area) if curve else None for curve in pair))
        for name, pair in (
            ("macro: the mean of the classes", (roc.macro, recall.macro)),
            ("micro: all pairs of an image and a class", (roc.micro, recall.micro)),
        )
    ]
    columns = (Column("average"), Column("ROC AUC", digits=4), Column("average precision", digits=4))
    return Table("Averages", columns, tuple(rows), "The areas of the classes are in the table of each class.")


@about_split
def gains_section(_: RunData, split: str, predictions: Predictions) -> Section | None:
    """Show how much of a class is found by looking at the images with the highest probability of it."""
    every = {number: cumulative_gains(count_class(predictions, number)) for number in reported_classes(predictions)}
    found = {number: curve for number, curve in every.items() if curve is not None}
    if not found:
        return None
    tenth = np.full(len(predictions.labels), np.nan)
    for number, curve in found.items():
        tenth[number] = curve.found_at(np.array(0.1)) / curve.best_lift_at(np.array(0.1))
    shown = {predictions.labels[number]: found[number] for number in outstanding(tenth, list(found))}
    table = _table({predictions.labels[number]: curve for number, curve in found.items()})
    lead = "If only some of the images can be looked at by a person: what looking at the most probable ones finds."
    return Section("gains", "Lift and gains", (gains_figure(shown), lift_figure(shown), table), lead)


def _table(found: dict[str, Gains]) -> Table:
    columns = [Column("class"), Column("share of all", digits=3, hint="of all images, those of the class")]
    columns += [Column(f"found in {share:.0%}", digits=3, bar=True) for share in _SHARES]
    columns += [Column(f"lift at {share:.0%}", digits=2) for share in _SHARES]
    shares = np.array(_SHARES)
    rows = tuple(
        (name, curve.prevalence, *curve.found_at(shares).tolist(), *curve.lift_at(shares).tolist())
        for name, curve in found.items()
    )
    caption = (
        "Found: the share of the class among so many of the most probable images. Lift: how much more than by chance."
    )
    return Table("Cumulative gains: found among the most probable images", tuple(columns), rows, caption)
