"""Per-class metrics, and the errors made most surely."""

from typing import Any

from finetune.evaluation.bootstrap import class_rows
from finetune.evaluation.curves.confusion import Misclassification, confident_errors
from finetune.evaluation.metrics import CLASS_SCORES
from finetune.evaluation.predictions import Predictions
from finetune.report.figures.classes_figure import recall_figure
from finetune.report.figures.intervals_figure import IntervalPoint
from finetune.report.html.blocks import Block, Cell, Column, Section, Table, Text
from finetune.report.run_data import RunData
from finetune.report.sections.section_split import NAMES, about_split
from finetune.runtime.format import format_count, format_interval, format_score, known, listed

_ERRORS = 30
_HEADINGS = {
    "recall": ("recall", "the share of the class's images that is recognised"),
    "precision": ("precision", "the share that is right of what is taken for the class"),
    "f1": ("F1", "the harmonic mean of precision and recall"),
    "roc_auc": ("ROC AUC", "how often an image of the class is given a higher probability than another image"),
    "average_precision": ("average precision", "the area below the curve of precision over recall"),
}


@about_split
def classes_section(run_data: RunData, split: str, predictions: Predictions) -> Section | None:
    """Tell of each class: images, scores and intervals, the lowest recall first."""
    rows = class_scores(run_data.document, split, predictions)
    measured = sorted((row for row in rows if row["support"]), key=lambda row: (row["recall"], row["label"]))
    absent = [row["label"] for row in rows if not row["support"]]
    blocks: list[Block] = []
    if measured:
        bars = [
            IntervalPoint(r["label"], r["support"], r["recall"], r["recall_low"], r["recall_high"]) for r in measured
        ]
        blocks.append(recall_figure(bars, sum(bar.value for bar in bars) / len(bars)))
    blocks.append(_table([*measured, *(row for row in rows if not row["support"])], NAMES[split]))
    if absent:
        lacking = f"{format_count(len(absent), 'class', 'classes')} without an image"
        blocks.append(Text(f"{lacking} in the {NAMES[split]} split cannot be judged: {listed(absent)}.", "warning"))
    return Section("classes", "Per-class metrics", tuple(blocks), _lead(measured))


def class_scores(document: dict[str, Any], split: str, predictions: Predictions) -> list[dict[str, Any]]:
    """Return the rows of metrics.json of a split; computed anew where they are missing or lack intervals."""
    rows: list[dict[str, Any]] = document.get("per_class", {}).get(split, [])
    complete = all(f"{name}_low" in row for row in rows for name in CLASS_SCORES)
    if complete and [row["label"] for row in rows] == list(predictions.labels):
        return rows
    return class_rows(predictions)


def _lead(measured: list[dict[str, Any]]) -> str:
    if not measured:
        return ""
    worst, best = measured[0], measured[-1]
    if worst["recall"] == best["recall"]:
        return f"All classes have the same recall, {format_score(worst['recall'])}."
    certain = format_interval(worst["recall_low"], worst["recall_high"])
    return (
        f"The weakest class is {worst['label']}: {format_score(worst['recall'])} of its "
        f"{format_count(worst['support'])} {'is' if worst['support'] == 1 else 'are'} recognised"
        f"{f' (95 % interval {certain})' if certain else ''}; the strongest is {best['label']} with "
        f"{format_score(best['recall'])} of {best['support']:,}."
    )


def _table(rows: list[dict[str, Any]], split: str) -> Table:
    columns = [Column("class"), Column("images", hint=f"of the class in the {split} split")]
    for name, hint in _HEADINGS.values():
        columns += [Column(name, digits=3, bar=True, hint=hint), Column(f"{name}, 95 %", hint="its interval")]
    cells: list[tuple[Cell, ...]] = []
    for row in rows:
        scores: list[Cell] = []
        for name in _HEADINGS:
            scores += [known(row[name]), format_interval(row[f"{name}_low"], row[f"{name}_high"])]
        cells.append((row["label"], row["support"], *scores))
    caption = "Intervals are those of resampled images; of a recall or precision of 0 or 1, the exact binomial bound."
    return Table("Scores of each class", tuple(columns), tuple(cells), caption)


@about_split
def errors_section(_: RunData, split: str, predictions: Predictions) -> Section | None:
    """List the wrong decisions with the highest probability."""
    errors = confident_errors(predictions, _ERRORS)
    if not errors:
        text = Text(f"Every one of the {format_count(predictions.num)} of the {NAMES[split]} split is right.", "good")
        return Section("errors", "Most confident errors", (text,))
    lead = (
        "What the network was surest of and wrong about. Look at these images first: "
        "some of them may be labelled wrongly."
    )
    table = _error_table(errors, multilabel=predictions.multilabel)
    return Section("errors", "Most confident errors", (table,), lead)


def _error_table(errors: list[Misclassification], *, multilabel: bool) -> Table:
    names = ["image", "true", "predicted", *(["wrong label"] if multilabel else [])]
    columns = (*map(Column, names), Column("probability", digits=3, hint="given to the wrong decision"), Column("file"))
    rows = tuple(
        (error.id, error.true or "none", error.predicted or "none", *((error.label,) if multilabel else ()),
         error.probability, error.path)
        for error in errors
    )  # fmt: skip
    return Table("Errors, the surest first", columns, rows)
