"""Figures of lines between 0 and 1: ROC, precision-recall, cumulative gains and lift."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluation.curves.averages import Curves
from finetune.evaluation.curves.curve import Curve, Line, simplify_curve, step_curve
from finetune.evaluation.curves.gains import Gains
from finetune.report.figures.short_names import outstanding, shorten
from finetune.report.html.blocks import Figure
from finetune.report.html.svg import COLOURS, DASHES, FAINT, INK, draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 15  # pixels of a line of the legend
_SHARES = np.linspace(0.005, 1, 200)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A line of a figure: its name, its points, and how it looks."""

    name: str
    line: Line
    colour: str
    dash: str
    width: float = 1.6


def roc_figure(curves: Curves, labels: Sequence[str], numbers: Sequence[int]) -> Figure:
    """Draw the ROC curves of the outstanding of the given classes, and their averages where there are several."""
    drawn = named_lines(curves, labels, numbers, steps=False)
    chance = Drawn("chance (0.500)", (np.array([0, 1]), np.array([0, 1])), FAINT, ":", 1.2)
    svg = _figure([*drawn, chance], ("false positive rate", "true positive rate"), "roc")
    words = "; ".join(line.name for line in drawn)
    caption = "The nearer to the upper left corner, the better; the number is the area below the line."
    return Figure("ROC curves", svg, f"Areas under the ROC curves: {words}.", caption)


def precision_recall_figure(curves: Curves, labels: Sequence[str], numbers: Sequence[int]) -> Figure:
    """Draw the precision-recall curves of the outstanding of the given classes, and their averages."""
    drawn = named_lines(curves, labels, numbers, steps=True)
    svg = _figure(drawn, ("recall", "precision"), "precision-recall")
    words = "; ".join(line.name for line in drawn)
    caption = "The nearer to the upper right corner, the better; the number is the average precision."
    return Figure("Precision and recall", svg, f"Average precisions: {words}.", caption)


def gains_figure(classes: dict[str, Gains]) -> Figure:
    """Draw the share of each named class that is found among the most probable share of all images."""
    lines = {name: (found.share, found.found) for name, found in classes.items()}
    svg = _against_chance(classes, lines, (0, 1), "share of the class found", "gains")
    tenth = "; ".join(f"{name} {found.found_at(np.array(0.1)):.0%}" for name, found in classes.items())
    caption = "Images are looked at in the order of falling probability."
    return Figure("Cumulative gains", svg, f"Found in the most probable tenth of all images: {tenth}.", caption)


def lift_figure(classes: dict[str, Gains]) -> Figure:
    """Draw how many times more of each named class is found than by chance."""
    lines = {name: (_SHARES, found.lift_at(_SHARES)) for name, found in classes.items()}
    svg = _against_chance(classes, lines, (1, 1), "times more than by chance", "lift")
    tenth = "; ".join(f"{name} {found.lift_at(np.array(0.1)):.1f}" for name, found in classes.items())
    caption = "How many times more images of the class are found than in as many images drawn at random."
    return Figure("Lift", svg, f"Lift in the most probable tenth of all images: {tenth}.", caption)


def named_lines(curves: Curves, labels: Sequence[str], numbers: Sequence[int], *, steps: bool) -> list[Drawn]:
    """Return the averages, where there are several classes, and the outstanding classes, with their areas.

    Args:
        curves: Of all classes.
        labels: The classes' names.
        numbers: The classes that may be named.
        steps: Whether the lines are steps, as those of precision over recall are.
    """
    drawn = []
    if len(numbers) > 1:
        for name, curve, dash in (("macro average", curves.macro, "-"), ("micro average", curves.micro, "--")):
            if curve is not None:
                drawn.append(Drawn(f"{name} ({curve.area:.3f})", _line(curve, steps=steps), INK, dash, 2.2))
    for place, number in enumerate(outstanding(curves.areas, numbers)):
        curve = curves.classes[number]
        if curve is not None:
            drawn.append(_styled(f"{shorten(labels[number])} ({curve.area:.3f})", _line(curve, steps=steps), place))
    return drawn


def _line(curve: Curve, *, steps: bool) -> Line:
    return step_curve(curve) if steps else (curve.x, curve.y)


def _against_chance(
    classes: dict[str, Gains], lines: dict[str, Line], chance: tuple[int, int], found: str, name: str
) -> str:
    """Draw a line for each class and what chance finds; the best possible line only beside one, as each has another."""
    drawn = [_styled(shorten(each), line, place) for place, (each, line) in enumerate(lines.items())]
    if len(classes) == 1:
        best = next(iter(classes.values())).best_lift_at(_SHARES)
        drawn.append(Drawn("best possible", (_SHARES, best if name == "lift" else best * _SHARES), INK, ":", 1.2))
    drawn.append(Drawn("by chance", (np.array([0, 1]), np.array(chance)), FAINT, ":", 1.2))
    return _figure(drawn, ("share of all images looked at", found), name)


def _styled(name: str, line: Line, place: int) -> Drawn:
    return Drawn(name, line, COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)])


def _figure(lines: Sequence[Drawn], axis_names: tuple[str, str], name: str) -> str:
    """Draw lines with a legend below, where it hides none of them."""

    def plot(axes: "Axes") -> None:
        for drawn in lines:
            x, y = simplify_curve(drawn.line)
            axes.plot(x, y, color=drawn.colour, linestyle=drawn.dash, linewidth=drawn.width, label=drawn.name)
        axes.set(xlabel=axis_names[0], ylabel=axis_names[1], xlim=(-0.01, 1.01))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if name == "lift" else -0.02)
        if name != "lift":
            axes.set_ylim(-0.02, 1.02)
        axes.grid(visible=True, linewidth=0.4, alpha=0.5)
        axes.figure.legend(loc="outside lower left", ncols=2, fontsize=8, handlelength=2.6)

    return draw_svg(plot, width=420, height=300 + _ROW * ((len(lines) + 1) // 2), name=name)
