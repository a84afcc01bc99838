"""How much of each class is recognised, as points with their intervals, the worst first.

It decides how many classes are drawn; their scores are those of metrics.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.page.blocks import Figure
from finetune.page.drawing import COLOURS, FAINT, INK, draw
from finetune.report.figures.names import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 20
ROW = 17


@dataclass(frozen=True)
class Bar:
    """A class: its name, its images, its recall, and the interval where there is one."""

    name: str
    support: int
    value: float
    low: float | None
    high: float | None


def recall_figure(bars: Sequence[Bar], mean: float) -> Figure:
    """Draw the classes with the lowest recall, and the mean of all of them as a line."""
    shown = sorted(bars, key=lambda bar: (bar.value, bar.name))[:MOST]

    def plot(axes: "Axes") -> None:
        axes.axvline(mean, color=FAINT, linestyle="--", linewidth=1.2)
        for place, bar in enumerate(shown):
            if bar.low is not None and bar.high is not None:
                axes.hlines(place, bar.low, bar.high, color=COLOURS[0], linewidth=2.4, alpha=0.5)
            axes.plot([bar.value], [place], "o", color=COLOURS[0], markersize=5)
        names = [f"{short(bar.name)} ({bar.support:,})" for bar in shown]
        axes.set_yticks(range(len(shown)), names, color=INK)
        axes.set(xlabel="recall", xlim=(-0.02, 1.02), ylim=(len(shown) - 0.5, -0.5))
        axes.grid(visible=True, axis="x", linewidth=0.4, alpha=0.5)
        axes.tick_params(axis="y", length=0)

    svg = draw(plot, width=480, height=70 + ROW * len(shown), name="recall")
    words = "; ".join(f"{bar.name} {bar.value:.2f}" for bar in shown)
    caption = (
        "The share of each class's images that is recognised (number of images in brackets), with 95 % intervals; "
        "the dashed line is the mean of all classes."
    )
    title = "Recall of each class" if len(shown) == len(bars) else f"The {len(shown)} classes with the lowest recall"
    return Figure(title, svg, f"Recall: {words}.", caption)
