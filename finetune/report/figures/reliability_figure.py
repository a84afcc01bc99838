"""Reliability diagram, with how many decisions are behind each of its points."""

from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluation.bootstrap import binomial_interval
from finetune.evaluation.curves.reliability import Reliability
from finetune.report.html.blocks import Figure
from finetune.report.html.svg import COLOURS, FAINT, draw_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_FEW = 10  # decisions below which a point says little


def reliability_figure(bins: Reliability) -> Figure:
    """Draw the share that came true over the probability that was given, with the counts below."""
    filled = np.flatnonzero(bins.counts)
    words = "; ".join(
        f"{bins.confidence[place]:.2f} given, {bins.rightness[place]:.2f} came true ({bins.counts[place]:,})"
        for place in filled.tolist()
    )
    svg = draw_panels(lambda figure: _plot(figure, bins), width=420, height=400, name="reliability")
    caption = (
        "On the diagonal, probabilities can be taken literally; below it they are too high. "
        f"Bars are 95 % intervals; hollow points have fewer than {_FEW} decisions."
    )
    return Figure("Reliability", svg, f"Probability and how often it came true: {words}.", caption)


def _plot(figure: "Drawing", bins: Reliability) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    filled = bins.counts > 0
    counts, x, y = bins.counts[filled], bins.confidence[filled], bins.rightness[filled]
    low, high = binomial_interval(np.round(y * counts), counts)
    upper.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1.2)
    firm = counts >= _FEW
    upper.plot(x[firm], y[firm], color=COLOURS[0], linewidth=1, alpha=0.6)
    for chosen, fill, strength in ((firm, COLOURS[0], 1.0), (~firm, "none", 0.45)):
        upper.vlines(x[chosen], low[chosen], high[chosen], color=COLOURS[0], linewidth=1.2, alpha=strength)
        upper.scatter(x[chosen], y[chosen], s=26, facecolors=fill, edgecolors=COLOURS[0], alpha=strength, zorder=3)
    upper.set(ylabel="share that came true", ylim=(-0.02, 1.02), xlim=(-0.02, 1.02))
    width = 1 / (len(bins.low) - 1)
    # the last bin is that of 1 exactly, which belongs to the last bar
    heights = np.append(bins.counts[:-2], bins.counts[-2:].sum())
    lower.bar(bins.low[:-1], heights, width=width * 0.92, align="edge", color=COLOURS[0], alpha=0.6)
    lower.set(xlabel="probability", ylabel="decisions")
    lower.set_yscale("symlog", linthresh=1)
    lower.set_ylim(bottom=0)
