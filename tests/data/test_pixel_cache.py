"""Stored pixels: evaluation sees the very same, training the same crops of fewer pixels, and nothing is read twice."""

import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from configured import settings_for
from PIL import Image
from sklearn.datasets import load_sample_images

from finetune.config.settings.training_groups import Augment
from finetune.data.cache.store import Cache
from finetune.data.datamodule import ImageBatch, ImageData
from finetune.data.decoding import DecodedImage, Region
from finetune.data.image_stores import FileStore
from finetune.data.pixel_cache import PixelCache, StoredPicture
from finetune.data.sources import folder
from finetune.data.splits import make_splits
from finetune.data.table import ImageTable
from finetune.data.transforms import InputSpec
from finetune.data.verification import verify_images
from finetune.errors import ConfigError, DataError

SPEC = InputSpec(3, 64, 48, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875, exact=False)
LIGHT = settings_for(Augment, crop_scale=(0.35, 1.0))
Make = Callable[..., ImageData]


@pytest.fixture
def table(tmp_path: Path) -> ImageTable:
    """Twenty crops of photos, of several sizes and modes, among them two of the same content."""
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(20):
        file = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        left = 7 * min(number, 18)
        box = (left, left, left + 300 + 20 * (number // 4), left + 200 + number // 9)
        photos[number % 2].crop(box).convert("L" if number % 5 == 0 else "RGB").save(file, quality=90)
    return make_splits(verify_images(folder(str(tmp_path / "photos")), "error"), val=0.2, test=0.2, seed=0)


@pytest.fixture
def data(tmp_path: Path, table: ImageTable) -> Make:
    def make(*, cached: bool = True, spec: InputSpec = SPEC, augment: Augment = LIGHT, **options: object) -> ImageData:
        cache = PixelCache(Cache(tmp_path / "cache", 10**9), spec, augment) if cached else None
        return ImageData(table, spec, augment, batch_size=6, pixel_cache=cache, **options)  # type: ignore[arg-type]

    return make


def batches(images: ImageData, split: str) -> list[ImageBatch]:
    return list(images.loader(split, augmented=split == "train"))


def assert_same(one: list[ImageBatch], other: list[ImageBatch]) -> None:
    assert len(one) == len(other)
    for batch, twin in zip(one, other, strict=True):
        assert all(torch.equal(batch[name], twin[name]) for name in batch)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("exact", [True, False])
def test_evaluation_is_bitwise_the_same_from_the_cache(data: Make, exact: bool, channels: int) -> None:
    spec = replace(SPEC, exact=exact, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)
    still = settings_for(Augment, enabled=False)
    for split in ("train", "val", "test"):
        expected = batches(data(cached=False, spec=spec, augment=still), split)
        assert_same(batches(data(spec=spec, augment=still), split), expected)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_training_sees_the_same_crops_of_fewer_pixels(data: Make, crop_mode: str) -> None:
    spec = replace(SPEC, crop_mode=crop_mode)
    pairs = zip(batches(data(spec=spec), "train"), batches(data(cached=False, spec=spec), "train"), strict=True)
    for cached, read in pairs:
        assert torch.equal(cached["row"], read["row"])
        assert (cached["image"] - read["image"]).abs().mean() * 127.5 < 4


def test_batches_from_the_cache_are_the_same_for_any_number_of_workers(data: Make) -> None:
    assert_same(batches(data(), "train"), batches(data(workers=2), "train"))


def test_a_second_run_reads_no_file(data: Make, table: ImageTable) -> None:
    expected = {split: batches(data(), split) for split in ("train", "val")}
    for path in table.frame["path"]:
        Path(path).unlink()
    for split, found in expected.items():
        assert_same(batches(data(), split), found)


def test_training_images_are_as_large_as_the_smallest_crop_needs_and_never_enlarged(tmp_path: Path) -> None:
    cache = PixelCache(Cache(tmp_path, 10**9), SPEC, LIGHT)
    assert cache.shorter == 128  # 64 / sqrt(0.35) = 108.2
    for size, stored in (((600, 400), (192, 128)), ((300, 900), (128, 384)), ((100, 90), (100, 90))):
        assert cache.shrink(DecodedImage(Image.new("RGB", size), 3, name="it")).size == stored


def test_a_stored_picture_finds_regions_of_the_original_to_half_a_pixel() -> None:
    picture = StoredPicture(Image.new("RGB", (200, 100)), (1000, 500))
    generator = random.Random(0)
    for _ in range(50):
        left, top = generator.randrange(600), generator.randrange(300)
        box = (left, top, left + generator.randint(20, 400), top + generator.randint(20, 200))
        found = picture.cutout(Region(box, (10, 10))).box
        assert np.abs(np.array(found) - np.array(box) / 5).max() <= 0.5


def test_stored_images_go_to_other_processes_without_their_pixels(data: Make, table: ImageTable) -> None:
    images = data()
    stored = images.stored(table.rows("train"), augmented=True)
    assert stored is not None and len(pickle.dumps(stored)) < 5000
    again = pickle.loads(pickle.dumps(stored))
    assert len(again.entries) == len(set(images.digests(table.rows("train"))))


def test_only_missing_images_are_read(data: Make, table: ImageTable, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    opened = FileStore.open
    monkeypatch.setattr(
        FileStore, "open", lambda self, path, channels: reads.append(path) or opened(self, path, channels)
    )
    rows = table.rows("train")
    images = data()
    images.stored(rows[:4], augmented=True)
    images.stored(rows, augmented=True)
    assert len(reads) == len(set(reads)) == len(set(images.digests(rows)))


def test_an_unreadable_image_stops_the_run(data: Make, table: ImageTable) -> None:
    lost = Path(table.frame["path"][table.rows("train")[0]])
    lost.write_bytes(lost.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be read"):
        batches(data(), "train")


@pytest.mark.parametrize("spec", [replace(SPEC, exact=True), replace(SPEC, interpolation="nearest")])
def test_settings_that_smaller_images_cannot_keep_are_refused(tmp_path: Path, spec: InputSpec) -> None:
    with pytest.raises(ConfigError, match="data.pixel_cache=true keeps training images smaller"):
        PixelCache(Cache(tmp_path, 10**9), spec, LIGHT)


def test_too_small_a_cache_is_refused_before_anything_is_decoded(tmp_path: Path, table: ImageTable) -> None:
    images = ImageData(table, SPEC, LIGHT, pixel_cache=PixelCache(Cache(tmp_path / "small", 10_000), SPEC, LIGHT))
    with pytest.raises(ConfigError, match=r"Pixels take .* or set data.pixel_cache=false"):
        images.train_dataloader()
