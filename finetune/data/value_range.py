"""Value range: which values of images of more than 8 bits are black and white, found once over a whole data set.

A file of 16 bits may hold 10 or 12, and one of real numbers 0 to 1, heights, or temperatures: one image does not tell.
"""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.errors import DataError

log = logging.getLogger(__name__)

# lowest and highest value, shown as 0 and 255
ValueRange = tuple[float, float]
# what is written where nothing was measured, in geodata and in scans
NODATA = (-9999.0, -99999.0, -32767.0, -32768.0)
NODATA_TAG = 42113  # of a TIFF: GDAL's own word for it
HUGE = 1e30  # beyond it no value is one, such as -3.4e38
# shares of an image's values that may lie outside its usual ones, percent
USUAL_SHARES = (0.1, 99.9)
MOST_BITS = 16
SLACK = 0.02  # by which resampled real numbers may leave their scale


class ValueSpan(NamedTuple):
    """The values of one image of more than 8 bits, without those that stand for no data.

    Attributes:
        low: Of all.
        high: Of all.
        usual_low: Of all but a thousandth.
        usual_high: Of all but a thousandth.
        whole: Whether they are stored as whole numbers.
    """

    low: float
    high: float
    usual_low: float
    usual_high: float
    whole: bool


def is_wide(image: Image.Image) -> bool:
    """Return whether an image is of grey values of more than 8 bits, or of real numbers."""
    return image.mode.startswith("I") or image.mode == "F"


def measure_span(image: Image.Image) -> ValueSpan | None:
    """Return the values of an image, None where it has no more than 8 bits or holds no number."""
    if not is_wide(image):
        return None
    values = np.asarray(image).astype(np.float64)
    values = values[np.isfinite(values) & ~is_nodata(image, values)]
    if not values.size:
        return None
    usual = np.percentile(values, USUAL_SHARES)
    return ValueSpan(
        float(values.min()), float(values.max()), float(usual[0]), float(usual[1]), image.mode.startswith("I")
    )


def is_nodata(image: Image.Image, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which values of an image stand for no data: by its own word for it, or by a usual one."""
    words = list(NODATA)
    given: Any = getattr(image, "tag_v2", {}).get(NODATA_TAG)
    with contextlib.suppress(ValueError):
        words += [] if given is None else [float(str(given).strip("\0 "))]
    return np.isin(values, words) | (np.abs(values) >= HUGE)


def find_value_range(spans: Sequence[ValueSpan]) -> ValueRange | None:
    """Return the range of a data set, None where no image has more than 8 bits.

    Whole numbers from 0 have that of the fewest bits, 8 to 16, that hold the largest. Others have 0 to 1 or 0 to 255
    where they fill half of it, else that of their usual values.
    """
    if not spans:
        return None
    low, high = min(span.low for span in spans), max(span.high for span in spans)
    if all(span.whole for span in spans) and low >= 0 and high < 2**MOST_BITS:
        return 0.0, float(2 ** max(8, int(high).bit_length()) - 1)
    for top in (1.0, 255.0):
        if low >= -SLACK * top and top / 2 < high <= top * (1 + SLACK):
            return 0.0, top
    low, high = min(span.usual_low for span in spans), max(span.usual_high for span in spans)
    return low, high if high > low else low + 1.0


def tell_value_range(spans: Sequence[ValueSpan], images: int, chosen: ValueRange | None, given: bool) -> None:
    """Log in a line which range images of more than 8 bits have."""
    if not spans or chosen is None:
        return
    low, high = min(span.low for span in spans), max(span.high for span in spans)
    kinds = {span.whole for span in spans}
    what = "whole and real numbers" if len(kinds) > 1 else "whole numbers" if kinds == {True} else "real numbers"
    log.info(
        "%s of %s images hold %s of more than 8 bits, %.9g to %.9g: %.9g is read as black and %.9g as white (%s).",
        f"{len(spans):,}", f"{images:,}", what, low, high, *chosen,
        "as set" if given else "found over all images; data.bits= or data.value_range=[low,high] sets another range",
    )  # fmt: skip


def to_eight_bits(image: Image.Image, value_range: ValueRange) -> Image.Image:
    """Return an image of more than 8 bits as grey of 8: the range from black to white, the rest clipped.

    NaN and what stands for no data is black.

    Raises:
        DataError: It holds no number.
    """
    low, high = value_range
    values = np.asarray(image).astype(np.float64)
    empty = np.isnan(values) | is_nodata(image, values)
    if np.isnan(values).all():
        raise DataError("it holds no number")
    values = np.clip(np.where(empty & ~np.isposinf(values), low, values), low, high)
    return Image.fromarray(np.rint((values - low) / (high - low) * 255.0).astype(np.uint8))


def guessed_eight_bits(image: Image.Image, sixteen: bool) -> Image.Image:
    """Return an image of more than 8 bits as grey of 8 where no range is known.

    Values of 16 bits are divided by 257, also where 32 bits hold them; real numbers from 0 to 1 are multiplied by 255.
    Others outside 0 to 255 are scaled by the image's own range; NaN counts as the lowest value.

    Args:
        image: A grey image of more than 8 bits.
        sixteen: Whether its format says that the values have 16 bits.
    """
    values = np.asarray(image).astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("it holds no number")
    low, high = float(finite.min()), float(finite.max())
    values = np.clip(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)
    if image.mode == "F" and low >= 0 and high <= 1:
        values = values * 255.0
    elif sixteen or (image.mode == "I" and low >= 0 and 255 < high <= 65535):
        values = values / 257.0
    elif low < 0 or high > 255:
        values = (values - low) / (high - low or 1.0) * 255.0
    return Image.fromarray(np.rint(values).astype(np.uint8))
