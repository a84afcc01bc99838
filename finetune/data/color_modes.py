"""Color modes: from any mode of PIL to upright grey, RGB or RGBA of 8 bits."""

import struct

import numpy as np
from PIL import ExifTags, Image

from finetune.errors import ConfigError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# turns by which width becomes height
SWAPPING = (_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8])


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """Return an image upright and with the given number of channels.

    Transparent parts are laid on white, values of more than 8 bits are scaled to 8, and EXIF rotation is applied.

    Args:
        image: Any PIL image.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).

    Raises:
        ConfigError: Another number of channels is asked for.
    """
    if channels not in MODES:
        raise ConfigError(
            f"Images can be read with 1, 3 or 4 channels, not {channels}. Set model.in_chans to one of them."
        )
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    image = upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image, sixteen)
    if image.mode == "La":
        image = image.convert("LA")
    transparent = image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info
    if not transparent or channels == 4:
        return image if image.mode == MODES[channels] else image.convert(MODES[channels])
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert(MODES[channels])


def upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says."""
    image.load()
    turn = orientation(image)
    return image if turn is None else image.transpose(turn)


def orientation(image: Image.Image) -> Image.Transpose | None:
    """Return how EXIF says that an image is to be turned, if at all; EXIF data that cannot be read say nothing."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, TypeError, LookupError, EOFError, OSError, struct.error):
        return None


def _to_eight_bits(image: Image.Image, sixteen: bool) -> Image.Image:
    """Return a grey image of 8 bits.

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
