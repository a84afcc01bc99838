"""Learning curves: loss and the monitored score of each epoch, with the phases."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune.report.html.blocks import Column as Heading
from finetune.report.html.blocks import Figure, Section, Table
from finetune.report.html.svg import COLOURS, DASHES, FAINT, draw_svg
from finetune.report.run_data import RunData
from finetune.runtime.format import format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Row = Mapping[str, Any]


def learning_section(run_data: RunData) -> Section | None:
    """Return the learning curves; None where nothing has been trained."""
    rows = epochs(run_data.history)
    if not rows:
        return None
    monitor = str(run_data.config.get("monitor", "val/accuracy"))
    score = monitor if monitor not in ("val/loss", "train/loss") else "val/accuracy"
    blocks = [curves(rows, ("train/loss", "val/loss"), "Loss")]
    if any(score in row for row in rows):
        blocks.append(curves(rows, (score.replace("val/", "train/", 1), score), score))
    names = [name for name in ("train/loss", "val/loss", score) if any(name in row for row in rows)]
    columns = (Heading("epoch"), Heading("phase"), *(Heading(name, 4) for name in names))
    cells = tuple((int(row["epoch"]), str(row.get("phase", "")), *(row.get(name) for name in names)) for row in rows)
    length = f"{format_count(len(rows), 'epoch')} in {format_count(len(phases_of(rows)), 'phase')}"
    sentence = f"{length}; {_best_of(rows, monitor, run_data)}"
    return Section("learning", "Learning curves", (*blocks, Table("Epochs", columns, cells, key=False)), sentence)


def epochs(history: Sequence[_Row]) -> list[dict[str, Any]]:
    """Return a row for each epoch, with all that was logged in it."""
    found: dict[int, dict[str, Any]] = {}
    for row in history:
        if "epoch" in row:
            found.setdefault(int(row["epoch"]), {}).update(row)
    return [found[epoch] for epoch in sorted(found)]


def phases_of(rows: Sequence[_Row]) -> list[tuple[str, float]]:
    """Return each phase, and the epoch at which it begins."""
    found: dict[str, float] = {}
    for row in rows:
        found.setdefault(str(row.get("phase", "")), float(row["epoch"]))
    return list(found.items())


def _best_of(rows: Sequence[_Row], monitor: str, run_data: RunData) -> str:
    """Return which epoch is kept."""
    known = [row for row in rows if monitor in row]
    if not known:
        return f"{monitor} was not measured."
    choose = min if run_data.config.get("mode") == "min" else max
    best = choose(known, key=lambda row: float(row[monitor]))
    return f"epoch {int(best['epoch'])} is the best by {monitor} ({float(best[monitor]):.4f})."


def curves(rows: Sequence[_Row], names: Sequence[str], title: str) -> Figure:
    """Return columns of the history over the epochs, with a line where a phase begins."""
    drawn = [name for name in names if sum(name in row for row in rows)]

    def plot(axes: "Axes") -> None:
        for number, name in enumerate(drawn):
            points = [(float(row["epoch"]), float(row[name])) for row in rows if name in row]
            marker = "o" if len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), DASHES[number], color=COLOURS[number], label=name, marker=marker)
        for name, start in phases_of(rows):
            axes.axvline(start, color=FAINT, linewidth=0.8)
            axes.annotate(name, (start, 1), xycoords=("data", "axes fraction"), xytext=(3, 2),
                          textcoords="offset points", fontsize=8)  # fmt: skip
        axes.set_xlabel("epoch")
        axes.legend()

    ends = [f"{name} ends at {next(float(row[name]) for row in reversed(rows) if name in row):.4f}" for name in drawn]
    return Figure(title, draw_svg(plot, name=f"learning-{title}"), "; ".join(ends))
