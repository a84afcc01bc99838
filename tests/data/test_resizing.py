"""Reading no more of an image than is needed changes its pixels by less than the tolerance, and no draw at all."""

import io
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from configured import settings_for
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from finetune.config.settings.training_groups import Augment
from finetune.data.decoding import DecodedImage, Region, UnreadableError
from finetune.data.resizing import resize_bytes
from finetune.data.transforms import InputSpec, Transform, eval_transform, train_transform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = InputSpec(3, 96, 96, MEAN, STD, "bicubic", 0.875, exact=False)
# what the docstring of `fast_resize` promises, for images decoded at a fraction of their size and for others
SCALED = (1.0, 24)
WHOLE = (0.3, 8)
Size = tuple[int, int]


@cache
def photo(size: Size, mode: str = "RGB", number: int = 0) -> Image.Image:
    """Return a photo; sharper than a camera's of that size where it is larger than the 640 x 427 of scikit-learn's."""
    tiles = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    canvas = Image.new("RGB", size)
    for row in range(-(-size[1] // 427)):
        for column in range(-(-size[0] // 640)):
            canvas.paste(tiles[(row + column + number) % 2], (column * 640, row * 427))
    return canvas.convert(mode)


def jpeg(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def both(make: Callable[[InputSpec], Transform], data: bytes, spec: InputSpec, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return what the fast and the exact transform make of a file with the same draws, from 0 to 255."""
    found = []
    for exact in (False, True):
        random.seed(seed)
        torch.manual_seed(seed)
        values = make(replace(spec, exact=exact)).apply(DecodedImage.open(data, spec.channels, name="it"))
        mean, std = torch.tensor(spec.mean)[:, None, None], torch.tensor(spec.std)[:, None, None]
        found.append((255 * (values * std + mean)).round())
    return found[0], found[1]


def assert_within(pair: tuple[Tensor, Tensor], tolerance: tuple[float, int]) -> None:
    difference = (pair[0] - pair[1]).abs()
    assert difference.mean() <= tolerance[0] and difference.max() <= tolerance[1]


def train(spec: InputSpec) -> Transform:
    return train_transform(spec, settings_for(Augment, vertical_flip=0.5))


FILES = {
    "odd sizes": lambda: jpeg(photo((1283, 861))),
    "long": lambda: jpeg(photo((2001, 430))),
    "progressive": lambda: jpeg(photo((1280, 854)), progressive=True),
    "no chroma subsampling": lambda: jpeg(photo((1280, 854)), subsampling=0),
    "grey": lambda: jpeg(photo((1280, 854), "L")),
    "CMYK": lambda: jpeg(photo((1280, 854), "CMYK")),
    **{f"turned {turn}": lambda turn=turn: jpeg(photo((1280, 848)), exif=turned(turn)) for turn in range(2, 9)},
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [eval_transform, train])
def test_scaled_decoding_is_within_tolerance(name: str, make: Callable[[InputSpec], Transform]) -> None:
    data = FILES[name]()
    for seed in range(3):
        assert_within(both(make, data, SPEC, seed), SCALED)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "hamming"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_every_setting_is_within_tolerance(channels: int, interpolation: str, crop_mode: str) -> None:
    spec = replace(SPEC, channels=channels, mean=MEAN[:channels], std=STD[:channels], width=80)
    spec = replace(spec, interpolation=interpolation, crop_mode=crop_mode)
    assert_within(both(eval_transform, FILES["odd sizes"](), spec), SCALED)
    assert_within(both(train, FILES["odd sizes"](), spec), SCALED)


@given(st.integers(20, 700), st.integers(20, 500), st.sampled_from(["bicubic", "bilinear"]), st.integers(0, 9))
def test_images_that_are_decoded_whole_differ_by_rounding_only(
    width: int, height: int, interpolation: str, seed: int
) -> None:
    stream = io.BytesIO()
    photo((700, 500)).crop((0, 0, width, height)).save(stream, "PNG", compress_level=1)
    spec = replace(SPEC, interpolation=interpolation)
    for make in (eval_transform, train):
        assert_within(both(make, stream.getvalue(), spec, seed), WHOLE)


@pytest.mark.parametrize("spec", [
    replace(SPEC, interpolation="nearest"),
    replace(SPEC, interpolation="box"),
    replace(SPEC, channels=4, mean=(*MEAN, 0.5), std=(*STD, 0.2)),
])  # fmt: skip
def test_what_torch_resizes_otherwise_stays_as_pil_does_it(spec: InputSpec) -> None:
    image = photo((300, 200)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    for make in (eval_transform, train):
        assert_within(both(make, stream.getvalue(), spec), (0, 0))


@pytest.mark.parametrize("size", [(1281, 855), (4000, 3000), (96, 96), (640, 2000), (193, 193)])
@pytest.mark.parametrize("needed", [(96, 96), (48, 64), (224, 224)])
def test_a_region_keeps_twice_the_pixels_asked_for(size: Size, needed: Size) -> None:
    picture = DecodedImage.open(jpeg(Image.new("RGB", size)), 3, name="it")
    assert picture.size == size
    box = (size[0] // 10, size[1] // 10, size[0] - 3, size[1] - 5)
    image, part = picture.cutout(Region(box, needed))
    shrunk = image.size != size
    for low, axis in ((0, 0), (1, 1)):
        extent = part[low + 2] - part[low]
        assert extent == pytest.approx((box[low + 2] - box[low]) * image.size[axis] / size[axis], abs=1)
        assert not shrunk or extent >= 2 * needed[axis] - 1e-9
    half = all((box[low + 2] - box[low]) / 2 >= 2 * needed[low] for low in (0, 1))
    assert shrunk == half


def test_large_jpegs_are_decoded_small_and_other_formats_whole() -> None:
    region = Region((0, 0, 1600, 1200), (100, 75))
    stream = io.BytesIO()
    photo((1600, 1200)).save(stream, "PNG", compress_level=1)
    assert DecodedImage.open(jpeg(photo((1600, 1200))), 3, name="it").cutout(region).image.size == (200, 150)
    assert DecodedImage.open(stream.getvalue(), 3, name="it").cutout(region).image.size == (1600, 1200)


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_a_turned_picture_knows_its_size_before_it_is_decoded(turn: int) -> None:
    picture = DecodedImage.open(jpeg(photo((320, 200)), exif=turned(turn)), 3, name="it")
    assert picture.size == ((320, 200) if turn in (1, 3) else (200, 320))
    assert picture.whole().size == picture.size


def test_draws_depend_on_the_seed_and_the_original_size_alone() -> None:
    data = jpeg(photo((1600, 1200)))
    states = []
    for exact in (False, True):
        random.seed(5)
        torch.manual_seed(5)
        train(replace(SPEC, exact=exact)).apply(DecodedImage.open(data, 3, name="it"))
        states.append((random.getstate(), torch.get_rng_state().tolist()))
    assert states[0] == states[1]


def test_a_truncated_file_is_unreadable_at_any_scale() -> None:
    data = jpeg(photo((1600, 1200)))
    for make in (eval_transform, train):
        with pytest.raises(UnreadableError, match="it cannot be read: .*truncated"):
            make(SPEC).apply(DecodedImage.open(data[: len(data) // 2], 3, name="it"))


def test_colours_erasing_and_randaugment_follow_the_same_draws() -> None:
    augment = settings_for(Augment, color_jitter=0.3, erase=1.0)
    stream = io.BytesIO()
    photo((300, 200)).save(stream, "PNG")
    pair = both(lambda spec: train_transform(spec, augment), stream.getvalue(), SPEC)
    assert_within(pair, (0.3, 6))
    strong = train_transform(SPEC, settings_for(Augment, rand_augment="rand-m9-mstd0.5-inc1"))
    assert np.isfinite(strong(photo((300, 200))).numpy()).all()


@given(
    width=st.integers(3, 120),
    height=st.integers(3, 120),
    less=st.sampled_from([0.0, 0.1, 0.25, 0.9]),
    size=st.sampled_from([32, 64, 112, 224]),
)
def test_a_part_of_any_extent_becomes_as_large_as_asked_for(width: int, height: int, less: float, size: int) -> None:
    part = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    for extent in ((width - less, height), (width, height - less), (width - less, height - less)):
        assert resize_bytes(part, extent, (size, size), "bilinear").shape == (3, size, size)
