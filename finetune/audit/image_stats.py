"""Image statistics: size, mode and frames of each file, a perceptual hash, and a thumbnail when asked for."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from finetune.data.decoding import UNREADABLE, open_image
from finetune.data.table import ImageStore
from finetune.data.thumbnails import encode_jpeg
from finetune.data.value_range import is_wide
from finetune.errors import DataError
from finetune.runtime.device import cores

# of a JPEG, what is decoded for the hash, in pixels; the hash itself looks at 32 x 32
DECODED = 128
THUMBNAIL, QUALITY = 160, 75


@dataclass(frozen=True)
class ImageStats:
    """What is known of an image without a network.

    Attributes:
        width: In pixels, upright.
        height: In pixels.
        mode: PIL's, such as RGB, L or RGBA.
        frames: 1 unless it is animated or has pages.
        bits: Perceptual hash (64,) of 0 and 1.
        contrast: Standard deviation of its grey values, 0 to 127; near 0 it shows nothing.
    """

    width: int
    height: int
    mode: str
    frames: int
    bits: npt.NDArray[np.uint8]
    contrast: float


def measure_images(store: ImageStore, paths: list[str]) -> list[ImageStats]:
    """Return the facts of images that can be read, on all cores."""
    Image.init()
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(lambda path: measure_image(store, path), paths))


def measure_image(store: ImageStore, path: str) -> ImageStats:
    """Return the facts of an image.

    The hash is that of the low frequencies of a cosine transform (pHash).
    Source: Zauner 2010, Implementation and benchmarking of perceptual image hash functions, section 3.2.
    """
    import imagehash

    image = open_original(store, path)
    size, mode, frames = image.size, image.mode, getattr(image, "n_frames", 1)
    turned = image.getexif().get(274, 1) in (5, 6, 7, 8)
    image.draft("L", (DECODED, DECODED))
    grey = ImageOps.exif_transpose(image).convert("L")
    width, height = size[::-1] if turned else size
    bits = imagehash.phash(grey).hash.ravel().astype(np.uint8)
    return ImageStats(width, height, mode, int(frames), bits, float(np.asarray(grey, np.float32).std()))


def open_original(store: ImageStore, path: str) -> Image.Image:
    """Return an image as its file has it; one of more than 8 bits, or in no file, as the store gives it."""
    try:
        image = open_image(store.content(path))
    except UNREADABLE:
        return store.read(path, 3)
    return store.read(path, 1) if is_wide(image) else image


def thumbnail(store: ImageStore, path: str) -> bytes | None:
    """Return an image as a small JPEG; None where it cannot be read."""
    try:
        return encode_jpeg(store.read(path, 3), THUMBNAIL, QUALITY)
    except (DataError, OSError):
        return None
