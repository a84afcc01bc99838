"""Reading pixels: any image PIL can read becomes upright grey, RGB or RGBA, and unreadable files are found first.

It decides how modes are converted and what counts as unreadable; what follows for the run is the policy's choice.
"""

import io
import logging
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from finetune.data.table import ImageTable, digest
from finetune.errors import ConfigError, DataError, nearest

log = logging.getLogger(__name__)

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
POLICIES = ("error", "skip")
# what PIL's readers raise on damaged files
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    MemoryError, NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


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
        raise ConfigError(f"Images can be read with 1, 3 or 4 channels, not {channels}. Set model.in_chans to one of them.")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if not transparent or channels == 4:
        return image.convert(MODES[channels])
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert(MODES[channels])


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return a grey image of 8 bits: 16-bit values divided by 257, others by their own range where they exceed it."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F" and values.size and 0.0 <= values.min() and values.max() <= 1.0:
        values = values * 255.0
    elif image.mode.startswith("I;16") or (values.size and 0 <= values.min() and 255 < values.max() <= 65535):
        values = values / 257.0
    elif values.size and (values.min() < 0 or values.max() > 255):
        values = (values - values.min()) * (255.0 / (values.max() - values.min()))
    return Image.fromarray(np.rint(values).astype(np.uint8))


def decode(source: bytes | Path, channels: int, *, name: str, draft: bool = False) -> Image.Image:
    """Return a decoded image.

    Args:
        source: The file's bytes or its path.
        channels: 1, 3 or 4.
        name: What to call the image in an error.
        draft: Whether a JPEG may be decoded at an eighth of its size, which finds the same damage sooner.

    Raises:
        DataError: It cannot be read: missing, empty, truncated, not an image, or larger than is safe to decode.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError
            if draft:
                image.draft("RGB", (image.width // 8, image.height // 8))
            image.load()
            return to_channels(image, channels)
    except UNREADABLE as error:
        raise DataError(f"{name} cannot be read: {reason(error)}. Remove it, or set data.unreadable=skip.") from error


def reason(error: BaseException) -> str:
    """Return in a few words why an image cannot be read."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, a possible decompression bomb"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image that PIL knows, or empty"
    return (str(error) or type(error).__name__).split("\n")[0].rstrip(".")


@dataclass(frozen=True)
class FileStore:
    """Images in files."""

    def read(self, path: str, channels: int) -> Image.Image:
        """Return the image with its channels, upright."""
        return decode(Path(path), channels, name=path)

    def content(self, path: str) -> bytes:
        """Return the file's bytes."""
        return Path(path).read_bytes()


@dataclass(frozen=True)
class ArrayStore:
    """Images in memory, addressed by their number in the path.

    Attributes:
        images: Grey values (N, H, W), 0 to 255.
    """

    images: npt.NDArray[np.uint8]

    def _at(self, path: str) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(self.images[int(path.rsplit("/", 1)[-1])])

    def read(self, path: str, channels: int) -> Image.Image:
        """Return the image with its channels."""
        return to_channels(Image.fromarray(self._at(path)), channels)

    def content(self, path: str) -> bytes:
        """Return the image's values."""
        return self._at(path).tobytes()


def verify(table: ImageTable, unreadable: str) -> ImageTable:
    """Decode every image once and note its digest, so that nothing unreadable is met later.

    Args:
        table: The images.
        unreadable: error, or skip to leave unreadable images out of every split.

    Raises:
        ConfigError: The policy is not known.
        DataError: Images cannot be read and the policy is error, or none is left.
    """
    if unreadable not in POLICIES:
        raise ConfigError(f"data.unreadable={unreadable} is not known. Use error or skip.{nearest(unreadable, POLICIES)}")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(lambda path: _check(table, path), table.frame["path"]))
    bad = [(name, problem) for name, (_, problem) in zip(table.frame["id"], found, strict=True) if problem]
    if bad:
        listed = "; ".join(f"{name}: {problem}" for name, problem in bad[:3])
        message = f"{len(bad):,} of {len(table):,} images cannot be read (first: {listed})."
        if unreadable == "error" or len(bad) == len(table):
            raise DataError(f"{message} Remove them, or set data.unreadable=skip.")
        log.warning("%s They are left out.", message)
    frame = table.frame.assign(digest=pd_object([content for content, _ in found]))
    readable = [problem is None for _, problem in found]
    skipped = (*table.skipped, *(name for name, _ in bad))
    return replace(table, frame=frame[readable].reset_index(drop=True), skipped=skipped)


def pd_object(values: list[str | None]) -> npt.NDArray[np.object_]:
    """Return values as an object column, so that None stays None."""
    return np.array(values, dtype=object)


def _check(table: ImageTable, path: str) -> tuple[str | None, str | None]:
    """Return the digest of an image, or why it cannot be read."""
    try:
        content = table.store.content(path)
        if isinstance(table.store, FileStore):
            decode(content, 3, name=path, draft=True)
        else:
            table.store.read(path, 3)
    except DataError as error:
        return None, reason(error.__cause__ or error)
    except OSError as error:
        return None, reason(error)
    return digest(content), None
