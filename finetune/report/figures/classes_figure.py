"""Figure of the recall of each class with its interval, the worst first."""

from collections.abc import Sequence

from finetune.report.figures.intervals_figure import IntervalPoint, draw_points
from finetune.report.html.blocks import Figure

_MOST = 20
_ROW = 17


def recall_figure(classes: Sequence[IntervalPoint], mean: float) -> Figure:
    """Draw the classes with the lowest recall, and the mean of all of them as a line."""
    shown = sorted(classes, key=lambda point: (point.value, point.name))[:_MOST]
    words = "; ".join(f"{point.name} {point.value:.2f}" for point in shown)
    caption = (
        "The share of each class's images that is recognised (number of images in brackets), with 95 % intervals; "
        "the dashed line is the mean of all classes."
    )
    title = "Recall of each class" if len(shown) == len(classes) else f"The {len(shown)} classes with the lowest recall"
    return Figure(title, draw_points(shown, mean, "recall", row=_ROW, name="recall"), f"Recall: {words}.", caption)
