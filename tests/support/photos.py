"""Smooth photos of several sizes and kinds, which the tests of device pixels make themselves."""

import io
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import ExifTags, Image

from finetune.data.transforms import InputSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = InputSpec(3, 96, 80, MEAN, STD, "bicubic", 0.875, exact=False)
Size = tuple[int, int]


@cache
def photo(size: Size, seed: int = 0) -> Image.Image:
    """Return soft blobs of colour with some grain, alike on no two sides."""
    generator = np.random.default_rng(seed)
    blobs = Image.fromarray(generator.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    grain = Image.fromarray(generator.integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3), dtype=np.uint8))
    return Image.blend(blobs, grain.resize(size, Image.Resampling.BICUBIC), 0.15)


def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    """Return an image as a file."""
    stream = io.BytesIO()
    image.save(stream, form, **({"quality": 90} if form == "JPEG" else {}), **options)
    return stream.getvalue()


def turned(orientation: int) -> bytes:
    """Return EXIF data that say how an image is to be turned."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def with_camera() -> bytes:
    """Return EXIF data that turn nothing."""
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "camera"
    return exif.tobytes()


PLAIN: dict[str, Callable[[], bytes]] = {
    "small": lambda: encoded(photo((120, 96), 1)),
    "odd": lambda: encoded(photo((331, 257), 2)),
    "tall": lambda: encoded(photo((150, 640), 3)),
    "wide": lambda: encoded(photo((901, 110), 4)),
    "progressive": lambda: encoded(photo((320, 240), 5), progressive=True),
    "whole chroma": lambda: encoded(photo((320, 240), 6), subsampling=0),
    "camera": lambda: encoded(photo((320, 240), 7), exif=with_camera()),
}
OTHERS: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: encoded(photo((200, 150), 8), "PNG"),
    "transparent": lambda: encoded(photo((200, 150), 8).convert("RGBA").rotate(30), "PNG"),
    "16 bit": lambda: encoded(Image.fromarray(np.arange(200 * 150, dtype=np.uint16).reshape(150, 200) * 2), "PNG"),
    "grey JPEG": lambda: encoded(photo((200, 150), 9).convert("L")),
    "CMYK": lambda: encoded(photo((200, 150), 10).convert("CMYK")),
    "stored as RGB": lambda: encoded(photo((200, 150), 11), keep_rgb=True),
    **{f"turned {turn}": lambda turn=turn: encoded(photo((200, 152), turn), exif=turned(turn)) for turn in (3, 5, 6)},
}
