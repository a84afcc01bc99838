"""Figure of precision, recall and the like over the decision threshold."""

from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluation.curves.curve import Line, simplify_curve
from finetune.evaluation.curves.threshold_choice import ThresholdDecision
from finetune.evaluation.curves.threshold_counts import ThresholdCounts
from finetune.report.html.blocks import Figure
from finetune.report.html.svg import COLOURS, DASHES, INK, draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def threshold_figure(ranked: ThresholdCounts, chosen: ThresholdDecision | None, label: str) -> Figure:
    """Draw precision, recall and the share of flagged images over the threshold, and the chosen one."""
    flagged = ranked.hits + ranked.alarms
    lines = {
        "precision": ranked.hits / flagged,
        "recall": ranked.hits / max(ranked.positives, 1),
        "share flagged": flagged / ranked.num,
    }

    def plot(axes: "Axes") -> None:
        for place, (name, values) in enumerate(lines.items()):
            x, y = simplify_curve(held(ranked.thresholds, values))
            axes.plot(x, y, color=COLOURS[place], linestyle=DASHES[place], label=name)
        if chosen is not None and np.isfinite(chosen.threshold):
            axes.axvline(chosen.threshold, color=INK, linewidth=1)
            axes.annotate(f"{chosen.threshold:g}", (chosen.threshold, 1.03), ha="center", annotation_clip=False)
        axes.set(xlabel="threshold", xlim=(-0.01, 1.01), ylim=(-0.02, 1.02))
        axes.grid(visible=True, linewidth=0.4, alpha=0.5)
        axes.figure.legend(loc="outside lower left", ncols=3, fontsize=8)

    caption = "On the images that the threshold is chosen on; the vertical line is the chosen one."
    words = "No threshold is chosen." if chosen is None else f"The chosen threshold is {chosen.threshold:g}."
    svg = draw_svg(plot, width=420, height=320, name="thresholds")
    return Figure(
        f"Thresholds of {label}", svg, f"Precision, recall and share flagged over the threshold. {words}", caption
    )


def held(thresholds: np.ndarray, values: np.ndarray) -> Line:
    """Return the line of values that hold from each of falling thresholds down to the next, from left to right."""
    low = np.append(thresholds[1:], 0.0)
    return np.stack([low, thresholds], axis=1)[::-1].ravel(), np.repeat(values[::-1], 2)
