"""How well each group of a column is served, as points with their intervals; groups too small to judge are grey.

It decides how the groups are drawn; their scores are those of metrics.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.page.blocks import Figure
from finetune.page.drawing import COLOURS, FAINT, INK, draw
from finetune.report.figures.names import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 19


@dataclass(frozen=True)
class Point:
    """A group: its name, its images, a score, the interval where there is one, and whether it can be judged."""

    name: str
    num: int
    value: float
    low: float | None
    high: float | None
    judged: bool


def group_figure(column: str, points: Sequence[Point], whole: float, *, name: str) -> Figure:
    """Draw the accuracy of groups in their order, and that of all images as a line; `name` is the figure's own."""

    def plot(axes: "Axes") -> None:
        axes.axvline(whole, color=FAINT, linestyle="--", linewidth=1.2)
        for place, point in enumerate(points):
            colour = COLOURS[0] if point.judged else COLOURS[-1]
            if point.low is not None and point.high is not None:
                axes.hlines(place, point.low, point.high, color=colour, linewidth=2.4, alpha=0.5)
            axes.plot([point.value], [place], "o", color=colour, markersize=5, mfc=colour if point.judged else "none")
        names = [f"{short(point.name)} ({point.num:,}{'' if point.judged else ', too small'})" for point in points]
        axes.set_yticks(range(len(points)), names, color=INK)
        axes.set(xlabel="accuracy", xlim=(-0.02, 1.02), ylim=(len(points) - 0.5, -0.5))
        axes.grid(visible=True, axis="x", linewidth=0.4, alpha=0.5)
        axes.tick_params(axis="y", length=0)

    svg = draw(plot, width=480, height=70 + ROW * len(points), name=name)
    words = "; ".join(f"{p.name} {p.value:.2f}{'' if p.judged else ' (too small to judge)'}" for p in points)
    caption = (
        "Accuracy in each group (number of images in brackets) with 95 % intervals; the dashed line is that of all "
        "images. Hollow grey groups are too small to judge."
    )
    return Figure(f"Accuracy by {column}", svg, f"Accuracy by {column}: {words}.", caption)
