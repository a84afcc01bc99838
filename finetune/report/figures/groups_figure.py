"""Figure of the score of each group with its interval; groups too small to judge are grey."""

from collections.abc import Sequence

from finetune.report.figures.intervals_figure import IntervalPoint, draw_points
from finetune.report.html.blocks import Figure

_ROW = 19


def group_figure(column: str, points: Sequence[IntervalPoint], whole: float, *, name: str) -> Figure:
    """Draw the accuracy of groups in their order, and that of all images as a line; `name` is the figure's own."""
    words = "; ".join(f"{p.name} {p.value:.2f}{'' if p.judged else ' (too small to judge)'}" for p in points)
    caption = (
        "Accuracy in each group (number of images in brackets) with 95 % intervals; the dashed line is that of all "
        "images. Hollow grey groups are too small to judge."
    )
    svg = draw_points(points, whole, "accuracy", row=_ROW, name=name)
    return Figure(f"Accuracy by {column}", svg, f"Accuracy by {column}: {words}.", caption)
