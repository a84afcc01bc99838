"""The picture of a comparison: accuracy against latency and against size, with the best trade-offs as a line.

It decides how the points are drawn; it is one SVG file that every browser shows, so nothing is needed to make it.
"""

import math
from collections.abc import Callable, Sequence
from html import escape

from finetune.search.ranking.ranking_results import RANKING_COSTS, RankedBackbone, pareto

WIDTH, HEIGHT = 620, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 60
_TITLES = {"latency_ms": "milliseconds per image, one at a time", "parameters": "parameters"}
STYLE = """
text { font: 12px sans-serif; fill: #222 } .title { font-size: 14px; font-weight: bold }
.grid { stroke: #ddd } .error { stroke: #888 } .front { fill: none; stroke: #c2410c; stroke-width: 1.5 }
.point { fill: #64748b } .best { fill: #c2410c }
"""


def draw_ranking(entries: Sequence[RankedBackbone], title: str) -> str:
    """Return the picture as SVG: a panel for each cost, accuracy upwards, the cost on a logarithmic axis.

    Args:
        entries: One or more.
        title: Of the whole.
    """
    panels = "".join(
        f'<g transform="translate({number * WIDTH},20)">{panel(entries, kind)}</g>'
        for number, kind in enumerate(RANKING_COSTS)
    )
    width, height = WIDTH * len(RANKING_COSTS), HEIGHT + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<style>{STYLE}</style>"
        f'<rect width="{width}" height="{height}" fill="white"/>'
        f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>{panels}</svg>\n'
    )


def panel(entries: Sequence[RankedBackbone], kind: str) -> str:
    """Return the panel of one cost."""
    costs = [math.log10(entry.cost(kind)) for entry in entries]
    scores = [entry.score.accuracy for entry in entries]
    across = scale(min(costs), max(costs), LEFT, WIDTH - RIGHT)
    upward = scale(min(scores), max(scores), HEIGHT - BOTTOM, TOP)
    front = pareto(entries, kind)
    best = {id(entry) for entry in front}
    parts = [axes(kind, costs, scores, across, upward), front_line(front, kind, across, upward)]
    parts += [point(entry, kind, id(entry) in best, across, upward) for entry in entries]
    return "".join(parts)


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return the function that maps values from low to high onto pixels, with a margin on both sides."""
    margin = 0.08 * (high - low) or 0.1 * abs(low) or 1.0
    low, high = low - margin, high + margin
    return lambda value: start + (value - low) / (high - low) * (end - start)


def axes(
    kind: str,
    costs: Sequence[float],
    scores: Sequence[float],
    across: Callable[[float], float],
    upward: Callable[[float], float],
) -> str:
    """Return lines and numbers at both ends and in the middle of the axes, and what the axes are."""
    parts = []
    for value in marks(costs):
        x = across(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{_short(10**value)}</text>')
    for value in marks(scores):
        y = upward(value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3f}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - BOTTOM + 40}" text-anchor="middle">{_TITLES[kind]}</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 10}">accuracy of a linear probe, cross-validated</text>')
    return "".join(parts)


def marks(values: Sequence[float]) -> list[float]:
    """Return where an axis is marked."""
    low, high = min(values), max(values)
    return [low] if low == high else [low + share * (high - low) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]


def _short(value: float) -> str:
    """Return a number in three digits."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def front_line(
    front: Sequence[RankedBackbone], kind: str, across: Callable[[float], float], upward: Callable[[float], float]
) -> str:
    """Return the line through the best trade-offs, in steps: what a budget buys."""
    path = ""
    for number, entry in enumerate(front):
        x, y = across(math.log10(entry.cost(kind))), upward(entry.score.accuracy)
        path += f"H{x:.1f}V{y:.1f}" if number else f"M{x:.1f},{y:.1f}"
    return f'<path class="front" d="{path}H{WIDTH - RIGHT}"/>'


def point(
    entry: RankedBackbone, kind: str, best: bool, across: Callable[[float], float], upward: Callable[[float], float]
) -> str:
    """Return a backbone's point with its name, its numbers when pointed at, and its standard error as a bar."""
    x, y = across(math.log10(entry.cost(kind))), upward(entry.score.accuracy)
    error = entry.score.accuracy_error
    name = escape(entry.candidate.name)
    said = f"{name}: {entry.score.accuracy:.4f} ± {error:.4f}, {_short(entry.cost(kind))} {_TITLES[kind]}"
    low, high = (max(TOP, min(HEIGHT - BOTTOM, upward(entry.score.accuracy + sign * error))) for sign in (-1, 1))
    return (
        f'<line class="error" x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}"/>'
        f'<circle class="{"best" if best else "point"}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{said}</title></circle>'
        f'<text x="{x + 9:.1f}" y="{y - 6:.1f}">{escape(entry.candidate.name.partition(".")[0])}</text>'
    )
