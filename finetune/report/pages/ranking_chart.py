"""Chart of a ranking of backbones: accuracy against latency and size, with the Pareto front as a line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.report.html.svg import COLOURS, FAINT, INK, draw_panels, standalone
from finetune.runtime.format import format_magnitude
from finetune.search.ranking.ranking_results import RANKING_COSTS, RankedBackbone, pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLES = {"latency_ms": "milliseconds per image, one at a time", "parameters": "parameters"}


def draw_ranking(entries: Sequence[RankedBackbone], title: str) -> str:
    """Return the picture as SVG: a panel for each cost, accuracy upwards, the cost on a logarithmic axis.

    Args:
        entries: One or more.
        title: Of the whole.
    """
    from matplotlib.figure import Figure

    def plot(figure: Figure) -> None:
        figure.suptitle(title, color=INK)
        panels = figure.subplots(1, len(RANKING_COSTS), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, RANKING_COSTS, strict=True):
            draw_panel(axes, entries, kind)
        panels[0].set_ylabel("accuracy of a linear probe, cross-validated")

    return standalone(draw_panels(plot, width=1240, height=440, name="ranking"))


def draw_panel(axes: "Axes", entries: Sequence[RankedBackbone], kind: str) -> None:
    """Draw each backbone with its standard error, and what a budget buys as a line in steps."""
    from matplotlib.ticker import LogLocator, NullFormatter

    front = pareto(entries, kind)
    best = {id(entry) for entry in front}
    costs = [entry.cost(kind) for entry in entries]
    room = max(1.5, (max(costs) / min(costs)) ** 0.15)
    axes.set(xscale="log", xlim=(min(costs) / room, max(costs) * room), xlabel=_TITLES[kind])
    steps = [
        *((entry.cost(kind), entry.score.accuracy) for entry in front),
        (max(costs) * room, front[-1].score.accuracy),
    ]
    axes.step(*zip(*steps, strict=True), where="post", color=COLOURS[1], linewidth=1.2)
    for entry in entries:
        place, score = entry.cost(kind), entry.score
        colour = COLOURS[1] if id(entry) in best else COLOURS[0]
        axes.errorbar(place, score.accuracy, score.accuracy_error, fmt="o", color=colour, ecolor=FAINT, markersize=5)
        name = entry.candidate.name.partition(".")[0]
        axes.annotate(name, (place, score.accuracy), xytext=(5, 5), textcoords="offset points", color=INK)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: format_magnitude(value))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, linewidth=0.4, alpha=0.5)
    axes.margins(y=0.12)
