"""Every mode becomes upright pixels of the right values; every unreadable file is found and named."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from finetune.data.color_modes import to_channels
from finetune.data.decoding import UnreadableError
from finetune.data.image_stores import FileStore, decode, image_suffixes
from finetune.data.sources import csv, folder
from finetune.data.verification import verify_images
from finetune.errors import ConfigError, DataError

GREY = np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)
COLOUR = np.stack([GREY, 255 - GREY, np.full_like(GREY, 7)], axis=-1)


def reopened(image: Image.Image, kind: str, **options: object) -> Image.Image:
    """Return what `decode` makes of an image stored in a format."""
    return decode(encoded(image, kind, **options), 3, name="it")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def grey_of(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


def test_grey_becomes_three_equal_channels_and_one_bit_black_and_white() -> None:
    assert (np.asarray(reopened(Image.fromarray(GREY), "PNG")) == grey_of(GREY)).all()
    bits = Image.fromarray(GREY > 100)
    assert bits.mode == "1"
    assert (np.asarray(reopened(bits, "PNG")) == grey_of((GREY > 100) * 255)).all()


def test_opaque_palette_keeps_its_colours() -> None:
    palette = Image.fromarray(COLOUR).quantize(256)
    assert (np.asarray(reopened(palette, "PNG")) == np.asarray(palette.convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_laid_on_white(mode: str) -> None:
    alpha = np.linspace(0, 255, GREY.size).astype(np.uint8).reshape(GREY.shape)
    image = Image.fromarray(COLOUR if mode == "RGBA" else GREY).convert(mode)
    image.putalpha(Image.fromarray(alpha))
    share = (alpha / 255.0)[..., None]
    colour = COLOUR if mode == "RGBA" else grey_of(GREY)
    expected = colour * share + 255 * (1 - share)
    assert np.abs(np.asarray(reopened(image, "PNG")).astype(float) - expected).max() <= 1


def test_transparent_colour_of_a_palette_is_white() -> None:
    palette = Image.new("P", (4, 2), 1)
    palette.putpalette([0, 0, 0, 200, 10, 20])
    palette.putpixel((0, 0), 0)
    pixels = np.asarray(reopened(palette, "PNG", transparency=0))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [200, 10, 20]


def test_transparent_colour_of_rgb_is_white() -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    image.putpixel((0, 0), (9, 9, 9))
    pixels = np.asarray(reopened(image, "PNG", transparency=(1, 2, 3)))
    assert pixels[0, 0].tolist() == [9, 9, 9]
    assert pixels[1, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    pixels = np.asarray(reopened(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), kind)).astype(int)
    assert np.abs(pixels - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("highest", [200, 4095, 65535])
def test_sixteen_bits_are_divided_by_257(kind: str, highest: int) -> None:
    values = np.linspace(0, highest, 120).astype(np.uint16).reshape(10, 12)
    pixels = np.asarray(reopened(Image.fromarray(values), kind))
    assert (pixels == grey_of(np.rint(values / 257.0))).all()


def test_big_endian_sixteen_bits_are_the_same() -> None:
    values = np.linspace(0, 65535, 120).astype(np.uint16).reshape(10, 12)
    image = Image.frombytes("I;16B", (12, 10), values.astype(">u2").tobytes())
    assert (np.asarray(to_channels(image, 1)) == np.rint(values / 257.0)).all()
    assert (np.asarray(reopened(image, "TIFF")) == grey_of(np.rint(values / 257.0))).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([-100, 0, 100], [0, 128, 255]),
        ([0, 100_000, 200_000], [0, 128, 255]),
        ([-5, -5, -5], [0, 0, 0]),
    ],
)
def test_thirty_two_bits_are_brought_to_eight(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert np.asarray(reopened(image, "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 99.6, 255.0], [0, 100, 255]),
        ([200.0, 300.0, 400.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([0.0, float("inf"), 1.0], [0, 255, 255]),
    ],
)
def test_real_numbers_are_brought_to_eight_bits(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert np.asarray(reopened(image, "TIFF"))[0, :, 0].tolist() == expected


def test_an_image_without_a_number_cannot_be_read() -> None:
    with pytest.raises(DataError, match="holds no number"):
        reopened(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)), "TIFF")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "La", "RGBa", "CMYK", "YCbCr", "HSV", "I", "F"]
)
def test_any_mode_has_the_channels_asked_for(mode: str, channels: int) -> None:
    through = {"La": "LA", "RGBa": "RGBA"}.get(mode, mode)
    source = Image.fromarray(COLOUR).convert("L" if mode in ("I", "F", "LA", "La", "1") else "RGB")
    image = (source.convert("P") if mode == "PA" else source.convert(through)).convert(mode)
    result = to_channels(image, channels)
    assert result.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    assert result.size == image.size


def test_four_channels_keep_transparency() -> None:
    image = Image.fromarray(COLOUR).convert("RGBA")
    image.putalpha(77)
    assert (np.asarray(decode(encoded(image, "PNG"), 4, name="it")) == np.asarray(image)).all()


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="1, 3 or 4 channels, not 2"):
        to_channels(Image.new("L", (2, 2)), 2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured_once(kind: str, orientation: int) -> None:
    image = Image.fromarray(np.kron(COLOUR, np.ones((8, 8, 1), dtype=np.uint8)))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(image, kind, exif=exif.tobytes(), **({"lossless": True} if kind == "WEBP" else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert expected.shape[:2] == ((96, 80) if orientation > 4 else (80, 96))
    assert (np.asarray(decode(data, 3, name="it")) == expected).all()


def test_damaged_exif_data_leave_the_pixels_readable() -> None:
    data = encoded(Image.fromarray(COLOUR), "PNG", exif=b"Exif\x00\x00no header at all")
    assert (np.asarray(decode(data, 3, name="it")) == COLOUR).all()


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue", "green")]
    pixels = np.asarray(reopened(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert (pixels == [255, 0, 0]).all()


def bomb() -> bytes:
    """Return a PNG of a few bytes that claims to be 100,000 pixels wide and high."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def truncated(kind: str) -> bytes:
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    return data[: len(data) // 2]


DAMAGED: dict[str, Callable[[], bytes]] = {
    "empty.png": lambda: b"",
    "text.jpg": lambda: b"this is no image\n" * 20,
    "half.jpg": lambda: truncated("JPEG"),
    "half.png": lambda: truncated("PNG"),
    "half.webp": lambda: truncated("WEBP"),
    "half.gif": lambda: truncated("GIF"),
    "half.bmp": lambda: truncated("BMP"),
    "half.tiff": lambda: truncated("TIFF"),
    "bomb.png": bomb,
    "noise.png": lambda: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
}


@pytest.fixture
def spoilt(make_images: Callable[..., Path]) -> Path:
    """Two classes of three good images, and all kinds of damage in one of them."""
    root = make_images(f"{label}/{number}.png" for label in ("cat", "dog") for number in range(3))
    for name, content in DAMAGED.items():
        (root / "cat" / name).write_bytes(content())
    return root


def test_each_kind_of_damage_is_an_error_naming_count_and_first_images(spoilt: Path) -> None:
    with pytest.raises(DataError) as caught:
        verify_images(folder(str(spoilt)), "error")
    message = str(caught.value)
    assert message.startswith(f"{len(DAMAGED)} of {len(DAMAGED) + 6} images cannot be read (first: cat/bomb.png: ")
    assert message.endswith("Remove them, or set data.unreadable=skip.")
    assert "decompression bomb" in message
    assert str(spoilt) not in message and "\n" not in message


@pytest.mark.parametrize("name", DAMAGED)
def test_no_kind_of_damage_is_read(name: str, spoilt: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        FileStore().read(str(spoilt / "cat" / name), 3)


def test_skip_leaves_out_the_damaged_and_counts_them(spoilt: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = verify_images(folder(str(spoilt)), "skip")
    assert sorted(table.frame["id"]) == [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(3)]
    assert sorted(table.skipped) == sorted(f"cat/{name}" for name in DAMAGED)
    assert table.labels == ("cat", "dog")
    assert f"{len(DAMAGED)} of {len(DAMAGED) + 6} images" in caplog.text


def test_skip_with_nothing_left_is_an_error(make_images: Callable[..., Path]) -> None:
    root = make_images(["cat/1.png", "dog/1.png"])
    for file in root.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="2 of 2 images cannot be read .* restore them"):
        verify_images(folder(str(root)), "skip")


def test_a_misspelt_policy_names_the_nearest(make_images: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="data.unreadable=skp is not known.* Did you mean 'skip'"):
        verify_images(folder(str(make_images(["a/1.png", "b/1.png"]))), "skp")


def test_a_folder_in_place_of_an_image_and_a_lost_file_are_unreadable(make_images: Callable[..., Path]) -> None:
    root = make_images(["a.png", "b.png", "c.png"])
    (root / "labels.csv").write_text("path,label\na.png,x\nb.png,y\nc.png,y\n")
    table = csv(str(root / "labels.csv"))
    (root / "c.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 images cannot be read \(first: c.png: no such file or directory\)"):
        verify_images(table, "error")
    with pytest.raises(DataError, match="cannot be read: is a directory"):
        FileStore().read(str(root), 3)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (7, 20), (8, 8), (300, 5)])
def test_tiny_jpegs_are_readable(size: tuple[int, int], make_images: Callable[..., Path]) -> None:
    root = make_images(["a/1.png", "b/1.png"])
    Image.new("RGB", size, "red").save(root / "a" / "tiny.jpg")
    assert len(verify_images(folder(str(root)), "error")) == 3


def test_verifying_reads_each_file_once(make_images: Callable[..., Path]) -> None:
    root = make_images(f"{label}/{number}.jpg" for label in "ab" for number in range(4))
    table = folder(str(root))
    reads: list[str] = []

    class Counting(FileStore):
        def content(self, path: str) -> bytes:
            reads.append(path)
            return super().content(path)

        def read(self, path: str, channels: int) -> Image.Image:
            reads.append(path)
            return super().read(path, channels)

    checked = verify_images(type(table)(table.frame, table.labels, table.task, Counting()), "error")
    assert sorted(reads) == sorted(table.frame["path"])
    assert checked.frame["digest"].nunique() == 8


def test_an_error_reads_the_same_after_a_worker_handed_it_on() -> None:
    text = "Caught UnreadableError in a worker.\nOriginal Traceback\n  x\n  a.UnreadableError: it broke\n"
    assert str(UnreadableError(text)) == str(UnreadableError("it broke")) == "it broke"


def test_image_suffixes_are_those_that_can_be_read() -> None:
    suffixes = image_suffixes()
    assert {".jpg", ".jpeg", ".png", ".gif", ".tif", ".tiff", ".webp", ".bmp", ".avif", ".ppm"} <= suffixes
    assert not suffixes & {".pdf", ".mpg", ".h5", ".txt"}
