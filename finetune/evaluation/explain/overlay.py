"""Overlay: an attribution map drawn over its image, at the image's own size."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.data.decoding import DecodedImage
from finetune.data.transforms import InputSpec, eval_transform

_Box = tuple[float, float, float, float]
OPACITY = 0.65
# from nothing over violet and orange to light yellow: told apart by lightness alone, so by everyone
# Source: the colours of inferno, by van der Walt and Smith 2015, at equal distances
_COLOURS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float64)


@lru_cache(maxsize=256)
def visible_box(spec: InputSpec, size: tuple[int, int]) -> _Box:
    """Return the part of an image that the network sees: left, top, right and bottom as shares of its sides.

    Where the network is shown a border around the image, the part reaches beyond it: below 0 and above 1.

    An image whose colours are its coordinates is brought to the input like any other, and read at its borders.

    Args:
        spec: What the weights expect.
        size: Width and height of the image.
    """
    width, height = size
    across = np.broadcast_to((np.arange(width) + 0.5) / width, (height, width))
    down = np.broadcast_to(((np.arange(height) + 0.5) / height)[:, None], (height, width))
    coded = np.stack([across, down, np.ones_like(across)], axis=-1)
    image = Image.fromarray((coded * 255).round().astype(np.uint8))
    plain = replace(spec, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3, exact=True)
    found = np.asarray(eval_transform(plain).pixels(DecodedImage(image, 3, name="coordinates")), np.float64) / 255
    row, column = found[found.shape[0] // 2], found[:, found.shape[1] // 2]
    ends = [end for line in (row[:, (0, 2)], column[:, (1, 2)]) for end in borders(line)]
    return ends[0], ends[2], ends[1], ends[3]


def borders(line: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the coordinates at both ends of a line of which a part shows the image, along which they rise evenly.

    Args:
        line: Coordinates and whether the image is there (N, 2), 0 to 1; where it is not, it has been padded.
    """
    shown = np.flatnonzero(line[:, 1] > 0.5)
    inner = shown[len(shown) // 4 : max(len(shown) - len(shown) // 4, len(shown) // 4 + 2)]
    slope, start = np.polyfit(inner, line[inner, 0], 1)
    ends = (float(start - slope / 2), float(start + slope * (len(line) - 0.5)))
    if len(shown) < len(line):
        return ends
    return float(np.clip(ends[0], 0, 1)), float(np.clip(ends[1], 0, 1))


def overlay(image: Image.Image, values: npt.NDArray[np.float32], box: _Box) -> Image.Image:
    """Return an image with a map over it.

    Args:
        image: As it is.
        values: The map (h, w), 0 to 1.
        box: The part of the image that it covers, as `visible_box` says.
    """
    left, top = round(box[0] * image.width), round(box[1] * image.height)
    right, bottom = round(box[2] * image.width), round(box[3] * image.height)
    scaled = Image.fromarray(np.asarray(values, np.float32)).resize(
        (max(1, right - left), max(1, bottom - top)), Image.Resampling.BICUBIC
    )
    strength = np.clip(np.asarray(scaled, np.float64), 0, 1)
    place = strength * (len(_COLOURS) - 1)
    lower = np.minimum(place.astype(int), len(_COLOURS) - 2)
    share = (place - lower)[..., None]
    colour = _COLOURS[lower] * (1 - share) + _COLOURS[lower + 1] * share
    result = image.convert("RGB").copy()
    under = np.asarray(result.crop((left, top, left + scaled.width, top + scaled.height)), np.float64)
    alpha = OPACITY * np.sqrt(strength)[..., None]
    mixed = Image.fromarray((under * (1 - alpha) + colour * alpha).round().astype(np.uint8))
    result.paste(mixed, (left, top))
    return result
