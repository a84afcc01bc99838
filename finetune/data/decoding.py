"""Lazy decoding: an image is opened first, and decoded when it is known which region is needed at what size."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from finetune.data.color_modes import SWAPPING, orientation, to_channels
from finetune.data.value_range import ValueRange
from finetune.errors import DataError

Size = tuple[int, int]
_Box = tuple[float, float, float, float]

# a JPEG is decoded at the smallest scale that leaves this many times the pixels asked for, in both directions
MARGIN = 2
SCALES = (8, 4, 2)
# formats that PIL decodes by itself: no file is handed to a program, such as EPS to Ghostscript
FORMATS = frozenset((
    "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "GIF", "HEIF", "ICNS", "ICO", "IM",
    "IMT", "JPEG", "JPEG2000", "JXL", "MCIDAS", "MPO", "MSP", "PCD", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI",
    "SPIDER", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM", "XVTHUMB",
))  # fmt: skip
# what PIL's readers raise on damaged files
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError,
    MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


class UnreadableError(DataError):
    """An image cannot be read.

    A worker process hands an error on as the text of its traceback; the message here is its last line, so that it
    reads the same wherever the image was read.
    """

    def __init__(self, message: str) -> None:
        """Keep the message itself of a traceback."""
        super().__init__(message.rsplit(f"{type(self).__name__}: ", 1)[-1].strip())


def unreadable_reason(error: BaseException) -> str:
    """Return in a few words why an image cannot be read."""
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, a possible decompression bomb (data.max_megapixels sets the "
            "limit)"
        )
    if isinstance(error, UnidentifiedImageError):
        return "empty, or not an image that PIL knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return (str(error) or type(error).__name__).split("\n")[0].rstrip(".")


@cache
def image_formats() -> tuple[str, ...]:
    """Return the formats that are opened: those of FORMATS that this PIL can read, in its own order."""
    Image.init()
    return tuple(name for name in Image.ID if name in FORMATS)


def open_image(content: bytes) -> Image.Image:
    """Open the bytes of a file, the one place where that is done; its pixels are not decoded yet.

    Only formats that PIL decodes by itself are, so that no file starts a program of the system, as EPS does.
    """
    return Image.open(io.BytesIO(content), formats=image_formats())


def allow_megapixels(most: float) -> None:
    """Let images of so many megapixels be read, in this process and in workers that it forks."""
    Image.MAX_IMAGE_PIXELS = round(most * 10**6)


@contextmanager
def name_unreadable(name: str) -> Iterator[None]:
    """Turn whatever PIL raises into an error that names the image."""
    try:
        yield
    except UNREADABLE as error:
        raise UnreadableError(
            f"{name} cannot be read: {unreadable_reason(error)}. Restore it, or start a run without it "
            "(data.unreadable=skip)."
        ) from error


class Region(NamedTuple):
    """What of a picture is needed.

    Attributes:
        box: Left, top, right and bottom, in pixels of the whole upright picture.
        size: Width and height that the box is resized to.
    """

    box: _Box
    size: Size


class Cutout(NamedTuple):
    """An image that shows a region.

    Attributes:
        image: Of the whole picture, possibly smaller than the original.
        box: Where the region lies in it: left, top, right and bottom.
    """

    image: Image.Image
    box: _Box


class DecodedImage:
    """An opened image: its size is known, and a JPEG is not decoded yet."""

    def __init__(
        self, image: Image.Image, channels: int, *, name: str, content: bytes | None = None,
        value_range: ValueRange | None = None,
    ) -> None:  # fmt: skip
        """Take an image as PIL has opened it.

        Args:
            image: Loaded or not.
            channels: 1, 3 or 4.
            name: What to call it in an error.
            content: The bytes of its file, where it has one.
            value_range: What values of more than 8 bits are black and white; None takes a guess of each image.

        Raises:
            UnreadableError: It cannot be decoded, or is larger than is safe to decode.
        """
        self.channels = channels
        self.name = name
        self.content = content
        with name_unreadable(name):
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError
            self.waits = isinstance(image, JpegImageFile)
            self.image = image if self.waits else to_channels(image, channels, value_range)
            self.turn = orientation(image) if self.waits else None

    @classmethod
    def open(
        cls, source: bytes | Path, channels: int, *, name: str, value_range: ValueRange | None = None
    ) -> "DecodedImage":
        """Open a file, or the bytes of one.

        Raises:
            UnreadableError: It is missing, empty, truncated, not an image, or larger than is safe to decode.
        """
        with name_unreadable(name):
            content = source if isinstance(source, bytes) else source.read_bytes()
            image = open_image(content)
        return cls(image, channels, name=name, content=content, value_range=value_range)

    @property
    def size(self) -> Size:
        """Width and height of the whole upright picture."""
        width, height = self.image.size
        return (height, width) if self.turn in SWAPPING else (width, height)

    def whole(self, scale: int = 1) -> Image.Image:
        """Return the upright image, decoded at 1/scale of its size where it is a JPEG; to be called once.

        Raises:
            UnreadableError: It cannot be decoded.
        """
        if not self.waits:
            return self.image
        with name_unreadable(self.name):
            if scale > 1:
                width, height = self.image.size
                self.image.draft(self.image.mode, (max(1, width // scale), max(1, height // scale)))
            return to_channels(self.image, self.channels)

    def cutout(self, region: Region) -> Cutout:
        """Return an image in which a region has at least MARGIN times the pixels asked for, or all that there are.

        Raises:
            UnreadableError: It cannot be decoded.
        """
        scale = self.scale_for(region)
        image = self.whole(scale)
        left, top, right, bottom = (value / scale for value in region.box)
        return Cutout(image, (left, top, min(right, image.width), min(bottom, image.height)))

    def scale_for(self, region: Region) -> int:
        """Return by how much a JPEG's sides may be divided in decoding.

        A picture that EXIF turns is divided evenly or not at all: else the incomplete pixels at its right and lower
        edge would come to lie at the others, and shift it.
        """
        left, top, right, bottom = region.box
        room = min((right - left) / region.size[0], (bottom - top) / region.size[1])
        width, height = self.image.size
        for scale in SCALES if self.waits else ():
            if room >= MARGIN * scale and (self.turn is None or width % scale == height % scale == 0):
                return scale
        return 1
