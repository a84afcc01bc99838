"""Thumbnails: images as a page holds them, small JPEGs."""

import io

from PIL import Image


def encode_jpeg(image: Image.Image, side: int | None = None, quality: int = 78) -> bytes:
    """Return an image as a JPEG, no side longer than `side` pixels; small ones are enlarged without smoothing."""
    if side is not None and max(image.size) < side // 2:
        scale = side // max(image.size)
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    if side is not None:
        image = image.copy()
        image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
