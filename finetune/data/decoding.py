"""Reading pixels: any image PIL can read becomes upright grey, RGB or RGBA, and unreadable files are found first.

It decides how modes are converted and what counts as unreadable; what follows for the run is the policy's choice.
"""

import io
import logging
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from finetune.cache.files import KnownFiles, file_state
from finetune.data.table import ImageTable, cores, digest, objects
from finetune.errors import ConfigError, DataError, nearest

log = logging.getLogger(__name__)

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
POLICIES = ("error", "skip")
# what PIL's readers raise on damaged files
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError,
    MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# formats that PIL recognises but cannot read
UNREAD_FORMATS = {"PDF", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
# more images than are checked in a few seconds
MANY = 20_000


@cache
def image_suffixes() -> frozenset[str]:
    """Return the file name endings that PIL can read, in lower case."""
    Image.init()
    formats = Image.OPEN.keys() - UNREAD_FORMATS
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


class UnreadableError(DataError):
    """An image cannot be read.

    A worker process hands an error on as the text of its traceback; the message here is its last line, so that it
    reads the same wherever the image was read.
    """

    def __init__(self, message: str) -> None:
        """Keep the message itself of a traceback."""
        super().__init__(message.rsplit(f"{type(self).__name__}: ", 1)[-1].strip())


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
        return image.convert(MODES[channels])
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert(MODES[channels])


def upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says; EXIF data that cannot be read say nothing."""
    image.load()
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, TypeError, LookupError, EOFError, OSError, struct.error):
        return image
    return image if turn is None else image.transpose(turn)


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
                image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
            return to_channels(image, channels)
    except UNREADABLE as error:
        raise UnreadableError(
            f"{name} cannot be read: {reason(error)}. Restore it, or start a run without it (data.unreadable=skip)."
        ) from error


def reason(error: BaseException) -> str:
    """Return in a few words why an image cannot be read."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, a possible decompression bomb"
    if isinstance(error, UnidentifiedImageError):
        return "empty, or not an image that PIL knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
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


def verify(table: ImageTable, unreadable: str, known: KnownFiles | None = None) -> ImageTable:
    """Read and decode every image once, on all cores, and note its digest, so that nothing unreadable is met later.

    Args:
        table: The images.
        unreadable: error, or skip to leave unreadable images out of every split.
        known: Files that were read before; those that have not changed since are not read again.

    Raises:
        ConfigError: The policy is not known.
        DataError: Images cannot be read and the policy is error, or none is left.
    """
    if unreadable not in POLICIES:
        raise ConfigError(
            f"data.unreadable={unreadable} is not known. Use error or skip.{nearest(unreadable, POLICIES)}"
        )
    if len(table) > MANY:
        log.info("Checking that %s images can be read.", f"{len(table):,}")
    found = check_all(table, known if isinstance(table.store, FileStore) else None)
    ids = table.frame["id"].tolist()
    bad = [(name, problem) for name, (_, problem) in zip(ids, found, strict=True) if problem]
    if bad:
        listed = "; ".join(f"{name}: {problem}" for name, problem in bad[:3])
        message = f"{len(bad):,} of {len(table):,} images cannot be read (first: {listed})."
        if len(bad) == len(table):
            raise DataError(f"{message} There is nothing to train on: restore them.")
        if unreadable == "error":
            raise DataError(f"{message} Remove them, or set data.unreadable=skip.")
        log.warning("%s They are left out.", message)
    rows = [row for row, (_, problem) in enumerate(found) if problem is None]
    frame = table.frame.iloc[rows].reset_index(drop=True)
    frame = frame.assign(digest=objects([found[row][0] for row in rows]))
    return replace(table, frame=frame, skipped=(*table.skipped, *(name for name, _ in bad)))


def check_all(table: ImageTable, known: KnownFiles | None) -> list[tuple[str | None, str | None]]:
    """Return of each image its digest, or why it cannot be read; files that have not changed are not read again."""
    paths = table.frame["path"].tolist()
    before = {} if known is None else known.digests(paths)
    unread = [path for path in paths if path not in before]
    states = {} if known is None else {path: file_state(path) for path in unread}
    Image.init()  # its table of formats is not made for several threads at once
    with ThreadPoolExecutor(cores()) as pool:
        fresh = dict(zip(unread, pool.map(lambda path: _check(table, path), unread), strict=True))
    if known is not None and fresh:
        known.note({path: found for path, (found, _) in fresh.items() if found is not None}, states)
    return [(before[path], None) if path in before else fresh[path] for path in paths]


def _check(table: ImageTable, path: str) -> tuple[str | None, str | None]:
    """Return the digest of an image, or why it cannot be read."""
    try:
        content = table.store.content(path)
        if not isinstance(table.store, ArrayStore):
            decode(content, 3, name=path, draft=True)
    except (DataError, OSError) as error:
        return None, reason(error.__cause__ or error)
    return digest(content), None
