"""Small real images on disk for the tests of data."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeImages = Callable[..., Path]


def picture(name: str, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """Return an image that is another one for each name."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def make_images(tmp_path: Path) -> MakeImages:
    """Write an image for each name below a folder, and return the folder."""

    def make(names: Iterable[str], root: str = "photos") -> Path:
        for name in names:
            file = tmp_path / root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(name).save(file)
        return tmp_path / root

    return make
