"""The confusion matrix as a figure that can be read at 2 and at 200 classes."""

from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluation.curves.confusion import ConfusionMatrix, most_confused
from finetune.report.figures.short_names import shorten
from finetune.report.html.blocks import Figure
from finetune.report.html.svg import INK, draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RIGHT, WRONG = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
STRONGEST = 0.6  # of the colour below numbers, so that they can be read on white and on black
SHARED, NUMBERED, NAMED = 10, 26, 40  # up to so many classes: shares in the cells, numbers, all names
SMALL, LARGE, NARROWEST = 180, 460, 420  # pixels of the matrix, and of the figure
_GAP = 11  # pixels between two names beside it


def confusion_figure(matrix: ConfusionMatrix) -> Figure:
    """Draw the matrix, its rows as shares in colour; the diagonal is right and has another colour."""
    size = len(matrix.labels)
    cell = 46 if size <= SHARED else 24
    side = min(max(cell * size, SMALL), LARGE) if size <= NUMBERED else LARGE
    margin = 6 * max(len(shorten(label, 20)) for label in matrix.labels) + 40
    svg = draw_svg(
        lambda axes: _plot(axes, matrix, side / size),
        width=max(side + margin, NARROWEST),
        height=side + margin,
        name="confusion",
    )
    pairs = "; ".join(f"{pair.true} as {pair.predicted}: {pair.count}" for pair in most_confused(matrix, 5))
    words = f"Most frequent errors: {pairs}." if pairs else "There is no error."
    return Figure("Confusion matrix", svg, f"{np.trace(matrix.counts):,} images are right. {words}", _caption(size))


def _caption(size: int) -> str:
    caption = (
        "Rows are the true classes, columns what was predicted. Blue is right, orange is wrong; "
        "the stronger, the larger the share of the row's images."
    )
    if size <= SHARED:
        return f"{caption} Each cell has its number of images, and the share of its row below."
    if size <= NUMBERED:
        return f"{caption} Each cell has its number of images."
    return caption if size <= NAMED else f"{caption} Only the classes with the most errors are named."


def colours(matrix: ConfusionMatrix) -> np.ndarray:
    """Return (K, K, 4) RGBA in [0, 1]; what is empty is transparent."""
    shares = np.nan_to_num(matrix.shares)
    picture = np.empty((*shares.shape, 4))
    diagonal = np.eye(len(shares), dtype=bool)
    picture[..., :3] = np.where(diagonal[..., None], RIGHT, WRONG) / np.array(255)
    if len(shares) <= NUMBERED:
        picture[..., 3] = STRONGEST * np.where(diagonal, shares, np.sqrt(shares))
    else:
        # a single error is to be seen in a cell of two pixels
        picture[..., 3] = np.where(diagonal, shares, np.where(shares > 0, 0.3 + 0.7 * np.sqrt(shares), 0))
    return picture


def named_classes(errors: np.ndarray, pixels: float) -> list[int]:
    """Return the classes with the most errors whose names do not touch, at `pixels` for each class."""
    chosen: list[int] = []
    for number in np.argsort(-errors, kind="stable").tolist():
        if errors[number] > 0 and all(abs(number - other) * pixels >= _GAP for other in chosen):
            chosen.append(number)
    return sorted(chosen)


def _plot(axes: "Axes", matrix: ConfusionMatrix, pixels: float) -> None:
    size = len(matrix.labels)
    axes.imshow(colours(matrix), interpolation="none", aspect="equal")
    rows, columns = matrix.errors.sum(axis=1), matrix.errors.sum(axis=0)
    every = list(range(size))
    shown = (every, every) if size <= NAMED else (named_classes(columns, pixels), named_classes(rows, pixels))
    font = 8 if size <= NUMBERED else 6.5
    axes.set_xticks(shown[0], [shorten(matrix.labels[k], 20) for k in shown[0]], rotation=90, fontsize=font)
    axes.set_yticks(shown[1], [shorten(matrix.labels[k], 20) for k in shown[1]], fontsize=font)
    axes.tick_params(length=0 if size <= NAMED else 3)
    axes.set(xlabel="predicted", ylabel="true")
    if size <= NUMBERED:
        _write_numbers(axes, matrix)


def _write_numbers(axes: "Axes", matrix: ConfusionMatrix) -> None:
    shares = matrix.shares
    with_shares = len(matrix.labels) <= SHARED
    for row, column in np.argwhere(matrix.counts > 0).tolist():
        text = f"{matrix.counts[row, column]:,}"
        if with_shares:
            text += f"\n{shares[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8 if with_shares else 6.5, color=INK)
