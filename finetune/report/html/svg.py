"""Figures as small SVG elements that follow the page's colours, light or dark."""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# told apart by people who are colour-blind, and readable on white and on black
# Source: Okabe and Ito 2008, Color Universal Design; yellow is left out, since it vanishes on white
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")
DASHES = ("-", "--", "-.", ":")  # what colour says is said by the line too
# these stand for colours of the page; they must not occur otherwise
INK, FAINT, PAPER = "#010203", "#010204", "#010205"
THEME = {INK: "var(--ink, #222)", FAINT: "var(--faint, #bbb)", PAPER: "var(--paper, #fff)"}
INCH = 72
_LARGEST = 1.3  # times the size that was asked for
SPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def draw_svg(plot: Callable[["Axes"], None], *, width: int = 420, height: int = 320, name: str = "figure") -> str:
    """Return an SVG element with one axes.

    Args:
        plot: Draws on the axes; colours are INK, FAINT, PAPER and COLOURS, or a colour map.
        width: In pixels; the page shrinks it where there is less room.
        height: In pixels.
        name: Of the figure; two figures of a page need different names.
    """
    return draw_panels(lambda figure: plot(figure.subplots()), width=width, height=height, name=name)


def draw_panels(plot: Callable[["Figure"], None], *, width: int = 840, height: int = 320, name: str = "figure") -> str:
    """Return an SVG element of a whole figure; arguments as in `draw_svg`, the figure is handed over without axes."""
    from cycler import cycler
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {
        "font.size": 9, "font.family": "sans-serif", "svg.fonttype": "none", "svg.hashsalt": name,
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "axes.titlesize": 9,
        "xtick.color": INK, "ytick.color": INK, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
        "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False, "grid.color": FAINT,
        "axes.prop_cycle": cycler(color=COLOURS), "legend.frameon": False, "lines.linewidth": 1.6,
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=(width / INCH, height / INCH), layout="constrained")
        FigureCanvasSVG(figure)
        plot(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return themed(file.getvalue())


def themed(svg: str) -> str:
    """Return matplotlib's SVG as an element that shrinks to the room there is, in the colours of the page."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>\s*", "", element, flags=re.DOTALL)
    largest = round(_LARGEST * float(re.findall(r"viewBox=\"0 0 ([0-9.]+)", element)[0]))
    shape = rf'<svg \1 style="max-width: {largest}px" {SPACES}>'
    element = re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", shape, element, count=1)
    known = set(re.findall(r"#([\w.-]+)", element))
    element = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in known else "", element)
    for colour, theme in THEME.items():
        element = element.replace(colour, theme)
    element = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", element)
    return re.sub(r"\n\s*", "\n", element).strip()


def standalone(svg: str) -> str:
    """Return an element as a file of its own, on white, in the colours of a light page."""
    plain = re.sub(r"var\(--\w+, (#\w+)\)", r"\1", svg)
    return plain.replace('style="', 'style="background: white; ', 1) + "\n"
