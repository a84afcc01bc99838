"""Color modes: from any mode of PIL to upright grey, RGB or RGBA of 8 bits."""

import struct

from PIL import ExifTags, Image

from finetune.data.value_range import ValueRange, guessed_eight_bits, is_wide, to_eight_bits
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


def to_channels(image: Image.Image, channels: int, value_range: ValueRange | None = None) -> Image.Image:
    """Return an image upright and with the given number of channels.

    Transparent parts are laid on white, values of more than 8 bits are scaled to 8, and EXIF rotation is applied.

    Args:
        image: Any PIL image.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        value_range: What values of more than 8 bits are black and white; None takes a guess of each image.

    Raises:
        ConfigError: Another number of channels is asked for.
    """
    if channels not in MODES:
        raise ConfigError(
            f"Images can be read with 1, 3 or 4 channels, not {channels}. Set model.in_chans to one of them."
        )
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    if is_wide(image):
        image.load()
        turn = orientation(image)
        grey = guessed_eight_bits(image, sixteen) if value_range is None else to_eight_bits(image, value_range)
        image = grey if turn is None else grey.transpose(turn)
    else:
        image = upright(image)
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
