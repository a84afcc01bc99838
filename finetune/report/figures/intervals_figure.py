"""Figure of scores with their intervals, one below the other, beside a score of all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.report.figures.short_names import shorten
from finetune.report.html.svg import COLOURS, FAINT, INK, draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class IntervalPoint:
    """A class or a group: name, images, a score, the interval where there is one, and whether it can be judged."""

    name: str
    num: int
    value: float
    low: float | None
    high: float | None
    judged: bool = True


def draw_points(points: Sequence[IntervalPoint], whole: float, score: str, *, row: int, name: str) -> str:
    """Return the SVG of points in their order; those that cannot be judged are hollow and grey.

    Args:
        points: From top to bottom.
        whole: A score of all of them, drawn as a line.
        score: What is measured.
        row: Pixels of each point.
        name: Of the figure; two figures of a page need different names.
    """

    def plot(axes: "Axes") -> None:
        axes.axvline(whole, color=FAINT, linestyle="--", linewidth=1.2)
        for place, point in enumerate(points):
            colour = COLOURS[0] if point.judged else COLOURS[-1]
            if point.low is not None and point.high is not None:
                axes.hlines(place, point.low, point.high, color=colour, linewidth=2.4, alpha=0.5)
            axes.plot([point.value], [place], "o", color=colour, markersize=5, mfc=colour if point.judged else "none")
        names = [f"{shorten(point.name)} ({point.num:,}{'' if point.judged else ', too small'})" for point in points]
        axes.set_yticks(range(len(points)), names, color=INK)
        axes.set(xlabel=score, xlim=(-0.02, 1.02), ylim=(len(points) - 0.5, -0.5))
        axes.grid(visible=True, axis="x", linewidth=0.4, alpha=0.5)
        axes.tick_params(axis="y", length=0)

    return draw_svg(plot, width=480, height=70 + row * len(points), name=name)
