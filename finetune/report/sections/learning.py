"""How a run learnt: loss and the monitored score of each epoch, with its phases.

It decides which columns of the history are drawn; the history itself is training's.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune.page.blocks import Column as Heading
from finetune.page.blocks import Figure, Section, Table
from finetune.page.drawing import COLOURS, DASHES, FAINT, draw
from finetune.report.material import Material
from finetune.report.sections.told import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]


def learning_section(material: Material) -> Section | None:
    """Return the learning curves; None where nothing has been trained."""
    rows = epochs(material.history)
    if not rows:
        return None
    monitor = str(material.config.get("monitor", "val/accuracy"))
    score = monitor if monitor not in ("val/loss", "train/loss") else "val/accuracy"
    blocks = [curves(rows, ("train/loss", "val/loss"), "Loss")]
    if any(score in row for row in rows):
        blocks.append(curves(rows, (score.replace("val/", "train/", 1), score), score))
    names = [name for name in ("train/loss", "val/loss", score) if any(name in row for row in rows)]
    columns = (Heading("epoch"), Heading("phase"), *(Heading(name, 4) for name in names))
    cells = tuple((int(row["epoch"]), str(row.get("phase", "")), *(row.get(name) for name in names)) for row in rows)
    length = f"{count(len(rows), 'epoch')} in {count(len(phases_of(rows)), 'phase')}"
    sentence = f"{length}; {best_of(rows, monitor, material)}"
    return Section("learning", "Learning", (*blocks, Table("Epochs", columns, cells, key=False)), sentence)


def epochs(history: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a row for each epoch, with all that was logged in it."""
    found: dict[int, dict[str, Any]] = {}
    for row in history:
        if "epoch" in row:
            found.setdefault(int(row["epoch"]), {}).update(row)
    return [found[epoch] for epoch in sorted(found)]


def phases_of(rows: Sequence[Row]) -> list[tuple[str, float]]:
    """Return each phase, and the epoch at which it begins."""
    found: dict[str, float] = {}
    for row in rows:
        found.setdefault(str(row.get("phase", "")), float(row["epoch"]))
    return list(found.items())


def best_of(rows: Sequence[Row], monitor: str, material: Material) -> str:
    """Return which epoch is kept."""
    known = [row for row in rows if monitor in row]
    if not known:
        return f"{monitor} was not measured."
    choose = min if material.config.get("mode") == "min" else max
    best = choose(known, key=lambda row: float(row[monitor]))
    return f"epoch {int(best['epoch'])} is the best by {monitor} ({float(best[monitor]):.4f})."


def curves(rows: Sequence[Row], names: Sequence[str], title: str) -> Figure:
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
    return Figure(title, draw(plot, name=f"learning-{title}"), "; ".join(ends))
