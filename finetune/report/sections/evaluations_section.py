"""Evaluations over time: score, interval and drift of each, as a table and a figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.evaluation.drift.timeline import TRAINING, TimelineRow, timeline
from finetune.report.html.blocks import Block, Column, Figure, Section, Table, Text
from finetune.report.html.svg import COLOURS, FAINT, draw_svg
from finetune.report.run_data import RunData
from finetune.runtime.format import format_interval, format_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = 8  # dates below the figure, at most
_COLUMNS = {
    "when": Column("evaluated"),
    "images": Column("images"),
    "split": Column("split"),
    "n": Column("n"),
    "accuracy": Column("accuracy", digits=4),
    "interval": Column("95 % interval", hint="of the accuracy"),
    "f1_macro": Column("macro F1", digits=4),
    "drift/inputs": Column("images drift", digits=3, hint="energy distance of the features to those of validation"),
    "drift/inputs_p": Column("p", digits=3, hint="how often chance alone puts the images as far apart"),
    "drift/classes": Column("classes drift", digits=3, hint="Jensen-Shannon distance of the predicted classes"),
    "drift/classes_p": Column("p (classes)", digits=3),
    "drift/confidence": Column("confidence drift", digits=3, hint="Kolmogorov-Smirnov distance of the confidences"),
    "drift/confidence_p": Column("p (confidence)", digits=3),
    "drifted": Column("beyond chance", hint="after Holm's correction, at 1 %"),
}
_CAPTION = (
    "Drift is how far the images, and what is predicted for them, are from the validation images: 0 is no difference, "
    "1 nothing in common. A dash: it was not measured, as for the validation images themselves."
)


def evaluations_section(run_data: RunData) -> Section | None:
    """Tell how the run did on whatever it was evaluated on since its training; None where it never was."""
    rows = [row for row in timeline(run_data.run) if row.get("accuracy") is not None]
    if all(row["folder"] == TRAINING for row in rows):
        return None
    blocks: list[Block] = [*warnings(rows), _table_of(rows)]
    if len(rows) > 1:
        blocks.insert(-1, _figure_of(rows))
    return Section("evaluations", "Evaluations and drift over time", tuple(blocks), lead=_lead_of(rows))


def _lead_of(rows: Sequence[TimelineRow]) -> str:
    """Return what the latest evaluation says beside the first."""
    first, last = rows[0], rows[-1]
    count = len([row for row in rows if row["folder"] != TRAINING])
    times = f"{count} evaluations" if count > 1 else "One evaluation"
    lead = (
        f"{times} since the training. The latest, of {last['n']:,} images ({last['images']}): accuracy {_spread(last)}"
    )
    if first is last:
        return f"{lead}."
    return (
        f"{lead}; {'at the end of the training' if first['folder'] == TRAINING else 'in the first'} {_spread(first)}."
    )


def _spread(row: TimelineRow) -> str:
    """Return an accuracy with its interval."""
    interval = _interval(row)
    return format_score(_float(row["accuracy"])) + (f" ({interval})" if interval else "")


def _interval(row: TimelineRow) -> str | None:
    """Return the interval of an accuracy, or None where it is not known."""
    return format_interval(_float(row.get("accuracy_low")), _float(row.get("accuracy_high")))


def _float(value: object) -> float | None:
    """Return a number; None where a row has none."""
    return value if isinstance(value, float) else None


def warnings(rows: Sequence[TimelineRow]) -> list[Text]:
    """Return a warning where the latest images have drifted."""
    last = rows[-1]
    if last["drifted"] in (None, "no"):
        return []
    return [
        Text(
            f"Drift beyond chance in the latest evaluation: {last['drifted']}. Its images, or what is predicted for "
            "them, are not like those that the run was chosen by: look at some, and think of training anew with them.",
            tone="warning",
        )
    ]


def _table_of(rows: Sequence[TimelineRow]) -> Table:
    """Return all evaluations, without the columns that none has a value for."""
    whole = [row | {"interval": _interval(row)} for row in rows]
    names = [name for name in _COLUMNS if any(row.get(name) is not None for row in whole)]
    cells = tuple(tuple(row.get(name) for name in names) for row in whole)
    columns = tuple(_COLUMNS[name] for name in names)
    return Table("Evaluations of this run", columns, cells, caption=_CAPTION, key=False)


def _figure_of(rows: Sequence[TimelineRow]) -> Figure:
    """Draw accuracy with its interval, evaluation after evaluation; what has drifted is hollow."""
    scores = [float(row["accuracy"] or 0.0) for row in rows]

    def plot(axes: "Axes") -> None:
        for place, row in enumerate(rows):
            low, high = row.get("accuracy_low"), row.get("accuracy_high")
            drifted = row["drifted"] not in (None, "no")
            colour, marker = (COLOURS[1], "s") if drifted else (COLOURS[0], "o")
            if isinstance(low, float) and isinstance(high, float):
                axes.vlines(place, low, high, color=colour, linewidth=2)
            axes.plot(place, scores[place], marker, color=colour, mfc="none" if drifted else colour)
        axes.plot(range(len(rows)), scores, color=FAINT, linewidth=1, zorder=0)
        step = -(-len(rows) // LABELS)
        shown = range(0, len(rows), step)
        axes.set_xticks(list(shown), [f"{str(rows[place]['when'])[:10]}\n{_short(rows[place])}" for place in shown])
        axes.set(xlim=(-0.5, len(rows) - 0.5), ylabel="accuracy")

    told = "; ".join(f"{row['when']} ({row['images']}): {_spread(row)}" for row in rows)
    return Figure(
        "Accuracy over time", draw_svg(plot, width=620, height=260, name="evaluations"), told,
        caption="With 95 % intervals; hollow squares are evaluations whose images or predictions have drifted.",
    )  # fmt: skip


def _short(row: TimelineRow) -> str:
    """Return which images were evaluated, short enough to stand below a figure."""
    name = "training" if row["folder"] == TRAINING else str(row["images"])
    return name if len(name) <= 12 else f"{name[:11]}…"
