"""Opening images: no file starts a program, and how large an image may be is a setting."""

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.audit.image_stats import measure_image
from finetune.data.decoding import FORMATS, DecodedImage, Region, allow_megapixels, image_formats
from finetune.data.image_stores import FileStore, image_suffixes
from finetune.data.sources import folder
from finetune.data.verification import verify_images
from finetune.errors import DataError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
WMF = b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(40)
PDF = b"%PDF-1.4\n%%EOF\n"


@pytest.fixture(autouse=True)
def usual_limit() -> Iterator[None]:
    limit = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = limit


@pytest.mark.parametrize("content", [EPS, b"\xc5\xd0\xd3\xc6" + bytes(60) + EPS, WMF, PDF])
@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_format_that_calls_a_program_is_never_opened(
    content: bytes, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **_: started.append(arguments))
    file = tmp_path / f"photo{ending}"
    file.write_bytes(content)
    for read in (lambda: FileStore().read(str(file), 3), lambda: measure_image(FileStore(), str(file))):
        with pytest.raises(DataError, match="not an image that PIL knows"):
            read()
    assert not started


def test_such_a_file_is_left_out_by_skip(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), len(name)).save(tmp_path / name)
    (tmp_path / "b" / "2.jpg").write_bytes(EPS)
    assert verify_images(folder(str(tmp_path)), "skip").skipped == ("b/2.jpg",)


def test_usual_formats_are_opened_and_those_of_programs_have_no_ending() -> None:
    assert {"JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM"} <= set(image_formats()) <= FORMATS
    assert not {".eps", ".ps", ".wmf", ".emf", ".pdf", ".mpg"} & image_suffixes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_how_many_pixels_an_image_may_have_is_a_setting(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("L", (2000, 1000), 9).save(buffer, kind)
    allow_megapixels(1.5)
    with pytest.raises(DataError, match=r"more than 1,500,000 pixels, .*data.max_megapixels"):
        DecodedImage.open(buffer.getvalue(), 3, name="photo")
    allow_megapixels(0.5)  # more than twice as many, at which PIL itself raises
    with pytest.raises(DataError, match=r"more than 500,000 pixels"):
        DecodedImage.open(buffer.getvalue(), 3, name="photo")
    allow_megapixels(2)
    assert DecodedImage.open(buffer.getvalue(), 3, name="photo").size == (2000, 1000)


def test_a_large_photo_is_decoded_at_a_fraction() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.tile(np.arange(250, dtype=np.uint8), (9000, 48))).save(buffer, "JPEG")
    allow_megapixels(120)
    picture = DecodedImage.open(buffer.getvalue(), 3, name="photo")
    assert picture.cutout(Region((0, 0, *picture.size), (224, 168))).image.size == (1500, 1125)
