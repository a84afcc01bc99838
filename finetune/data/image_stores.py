"""Image stores: where images lie, in files or in memory, and what their content is."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.data.decoding import DecodedImage, image_formats
from finetune.data.value_range import ValueRange


@cache
def image_suffixes() -> frozenset[str]:
    """Return the file name endings that PIL can read, in lower case."""
    formats = image_formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


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
    return DecodedImage.open(source, channels, name=name).whole(8 if draft else 1)


@dataclass(frozen=True)
class FileStore:
    """Images in files.

    Attributes:
        value_range: What values of more than 8 bits are black and white; None takes a guess of each image.
    """

    value_range: ValueRange | None = None

    def open(self, path: str, channels: int) -> DecodedImage:
        """Open the image."""
        return DecodedImage.open(Path(path), channels, name=path, value_range=self.value_range)

    def read(self, path: str, channels: int) -> Image.Image:
        """Return the image with its channels, upright."""
        return self.open(path, channels).whole()

    def content(self, path: str) -> bytes:
        """Return the file's bytes."""
        return Path(path).read_bytes()


@dataclass(frozen=True)
class ArrayStore:
    """Images in memory, addressed by their number in the path.

    Attributes:
        images: Grey values (N, H, W), 0 to 255.
        value_range: None, since there are no values of more than 8 bits.
    """

    images: npt.NDArray[np.uint8]
    value_range: ValueRange | None = None

    def _at(self, path: str) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(self.images[int(path.rsplit("/", 1)[-1])])

    def open(self, path: str, channels: int) -> DecodedImage:
        """Return the image as a picture."""
        return DecodedImage(Image.fromarray(self._at(path)), channels, name=path)

    def read(self, path: str, channels: int) -> Image.Image:
        """Return the image with its channels."""
        return self.open(path, channels).whole()

    def content(self, path: str) -> bytes:
        """Return the image's values."""
        return self._at(path).tobytes()
