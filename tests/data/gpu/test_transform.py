"""Images made on a device are those of the usual way within the tolerance that is promised, whatever the file."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from configured import settings_for
from photos import OTHERS, PLAIN, SPEC, encoded, photo
from torch import Tensor

from finetune.config.settings.training_groups import Augment
from finetune.data.datamodule import ImageBatch, ImageData, seeded
from finetune.data.decoding import DecodedImage, UnreadableError
from finetune.data.gpu import transform as making
from finetune.data.gpu.transform import DeferredImages, DeviceTransform
from finetune.data.sources import folder
from finetune.data.splits import make_splits
from finetune.data.table import ImageTable
from finetune.data.transforms import InputSpec, Transform, eval_transform, train_transform
from finetune.data.verification import verify_images

FILES = {**PLAIN, **OTHERS}
# mean and most, on soft photos without the edges on which the docstring of `Maker` allows more
TOLERANCE = (0.3, 3)
COLOURS = (1.5, 8)
# what `fast_resize` promises
SCALED = (1.0, 24)
VARIED = settings_for(Augment, vertical_flip=0.5, erase=0.3)


def to_values(images: Tensor, spec: InputSpec) -> Tensor:
    """Return normalised images as 0 to 255."""
    mean, std = torch.tensor(spec.mean)[:, None, None], torch.tensor(spec.std)[:, None, None]
    return 255 * (images * std + mean)


def both(
    make: Callable[[InputSpec], Transform], data: bytes, spec: InputSpec, *, exact: bool = False, seed: int = 0,
    device: str = "cpu",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return what the device and what the usual way make of a file with the same draws, from 0 to 255."""
    transform = DeviceTransform(make(spec))
    with seeded(seed):
        made = transform.join([transform.apply(DecodedImage.open(data, spec.channels, name="it"))]).to(device)[0].cpu()
    with seeded(seed):
        usual = make(replace(spec, exact=exact)).apply(DecodedImage.open(data, spec.channels, name="it"))
    return to_values(made, spec), to_values(usual, spec)


def assert_within(pair: tuple[Tensor, Tensor], tolerance: tuple[float, float]) -> None:
    difference = (pair[0] - pair[1]).abs()
    assert difference.mean() <= tolerance[0] and difference.max() <= tolerance[1] + 0.01


def train(spec: InputSpec) -> Transform:
    return train_transform(spec, VARIED)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [eval_transform, train])
def test_every_kind_of_file_is_within_tolerance(name: str, make: Callable[[InputSpec], Transform], exact: bool) -> None:
    for seed in range(3):
        assert_within(both(make, FILES[name](), SPEC, exact=exact, seed=seed), TOLERANCE)


@pytest.mark.parametrize("make", [eval_transform, train])
def test_a_large_photo_is_decoded_whole(make: Callable[[InputSpec], Transform]) -> None:
    data = encoded(photo((1283, 861), 12))
    for seed in range(3):
        assert_within(both(make, data, SPEC, exact=True, seed=seed), TOLERANCE)
        assert_within(both(make, data, SPEC, seed=seed), SCALED)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_every_setting_is_within_tolerance(channels: int, interpolation: str, crop_mode: str) -> None:
    spec = replace(SPEC, channels=channels, mean=SPEC.mean[:channels], std=SPEC.std[:channels])
    spec = replace(spec, interpolation=interpolation, crop_mode=crop_mode)
    for name in ("odd", "wide", "grey JPEG"):
        assert_within(both(eval_transform, FILES[name](), spec, exact=True), TOLERANCE)


def test_changed_colours_are_within_tolerance() -> None:
    def colours(spec: InputSpec) -> Transform:
        return train_transform(spec, settings_for(Augment, color_jitter=0.4))

    for name in ("odd", "PNG"):
        for seed in range(8):
            assert_within(both(colours, FILES[name](), SPEC, exact=True, seed=seed), COLOURS)
    plain = both(train_transform_of_crops, FILES["odd"](), SPEC, seed=3)[0]
    assert (both(colours, FILES["odd"](), SPEC, seed=3)[0] - plain).abs().mean() > 5


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize(
    "augment",
    [settings_for(Augment, quarter_turns=True), settings_for(Augment, rotate=20.0), settings_for(Augment, blur=1.0)],
    ids=["turns", "rotation", "blur"],
)
def test_turns_rotations_and_blur_are_within_tolerance(augment: Augment, crop_mode: str) -> None:
    spec = replace(SPEC, width=SPEC.height, crop_mode=crop_mode)
    for name in ("odd", "wide", "PNG"):
        for seed in range(4):
            pair = both(lambda spec: train_transform(spec, augment), FILES[name](), spec, exact=True, seed=seed)
            assert_within(pair, TOLERANCE)


def train_transform_of_crops(spec: InputSpec) -> Transform:
    return train_transform(spec, settings_for(Augment))


@pytest.fixture
def table(tmp_path: Path) -> ImageTable:
    """Files of every kind in two classes."""
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number, (name, make) in enumerate(FILES.items()):
            suffix = ".jpg" if make()[:2] == b"\xff\xd8" else ".png"
            (tmp_path / "photos" / label / f"{number} {name}{suffix}").write_bytes(make())
    return make_splits(verify_images(folder(str(tmp_path / "photos")), "error"), val=0.2, test=0.2, seed=0)


def batches(table: ImageTable, split: str, **options: object) -> Iterator[ImageBatch]:
    """Yield batches with their images made."""
    augment = settings_for(Augment, vertical_flip=0.5, color_jitter=0.3, erase=0.5)
    images = ImageData(table, SPEC, augment, device_pixels=True, **options)  # type: ignore[arg-type]
    for batch in images.loader(split, augmented=split == "train"):
        assert isinstance(batch["image"], DeferredImages) and len(batch["image"]) == len(batch["row"])
        yield {**batch, "image": batch["image"].to("cpu")}


@pytest.mark.parametrize("split", ["train", "val"])
def test_batches_are_bitwise_the_same_for_any_number_of_workers(split: str, table: ImageTable) -> None:
    pairs = zip(batches(table, split, workers=0), batches(table, split, workers=2), strict=True)
    assert all(torch.equal(one[name], other[name]) for one, other in pairs for name in one)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_image_does_not_depend_on_the_others_of_its_batch(
    split: str, table: ImageTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def images(size: int) -> dict[int, Tensor]:
        found = batches(table, split, batch_size=size, eval_batch_size=size)
        return {int(row): image for batch in found for row, image in zip(batch["row"], batch["image"], strict=True)}

    few = images(2)
    for together in (making.TOGETHER, 1, 100_000):
        monkeypatch.setattr(making, "TOGETHER", together)
        many = images(100)
        assert many.keys() >= few.keys()
        assert all(torch.equal(few[row], many[row]) for row in few)


def test_batches_differ_from_the_usual_ones_by_the_tolerance_only(table: ImageTable) -> None:
    usual = ImageData(table, SPEC, VARIED, batch_size=8, seed=4)
    device = ImageData(table, SPEC, VARIED, batch_size=8, seed=4, device_pixels=True)
    for split in ("train", "val", "test"):
        pairs = zip(*(images.loader(split, augmented=split == "train") for images in (device, usual)), strict=True)
        for made, expected in pairs:
            assert torch.equal(made["row"], expected["row"])
            values = (to_values(images, SPEC) for images in (made["image"].to("cpu"), expected["image"]))
            assert_within(tuple(values), TOLERANCE)  # type: ignore[arg-type]


def test_views_of_images_are_made_too(table: ImageTable) -> None:
    usual, device = (ImageData(table, SPEC, VARIED, device_pixels=made) for made in (False, True))
    for view in (0, 1):
        (one,), (other,) = usual.view_loader("test", view), device.view_loader("test", view)
        assert_within((to_values(other["image"].to("cpu"), SPEC), to_values(one["image"], SPEC)), TOLERANCE)


def test_kept_features_of_both_ways_are_told_apart(table: ImageTable) -> None:
    usual, device = (ImageData(table, SPEC, VARIED, device_pixels=made) for made in (False, True))
    assert usual.input_description != device.input_description


def damaged(data: bytes) -> bytes:
    """Return a file whose header can be read, but whose tables for decoding are missing."""
    return data.replace(b"\xff\xdb", b"\xff\xfe")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_named_like_anywhere_else(workers: int, table: ImageTable) -> None:
    path = next(path for path in table.frame["path"].iloc[table.rows("train")] if "odd" in path or "wide" in path)
    Path(path).write_bytes(damaged(Path(path).read_bytes()))
    with pytest.raises(UnreadableError) as usual:
        DecodedImage.open(Path(path), 3, name=path).whole()
    with pytest.raises(UnreadableError) as found:
        list(batches(table, "train", workers=workers))
    assert str(found.value) == str(usual.value)
    assert path in str(found.value)


def test_a_file_that_the_decoder_refuses_is_decoded_by_pil(monkeypatch: pytest.MonkeyPatch) -> None:
    decode, refused = making.io.decode_jpeg, encoded(photo((64, 48), 5))

    def decoder(files: list[Tensor], *arguments: object) -> list[Tensor]:
        if any(file.numpy().tobytes() == refused for file in files):
            raise RuntimeError("not supported")
        return decode(files, *arguments)  # type: ignore[no-any-return]

    transform = DeviceTransform(eval_transform(SPEC))
    sources = [
        transform.apply(DecodedImage.open(data, 3, name="it")) for data in (PLAIN["odd"](), refused, PLAIN["small"]())
    ]
    expected = transform.join(sources).to("cpu")
    monkeypatch.setattr(making.io, "decode_jpeg", decoder)
    assert torch.equal(transform.join(sources).to("cpu"), expected)


def test_a_batch_is_laid_out_as_asked() -> None:
    transform = DeviceTransform(eval_transform(SPEC))
    batch = transform.join([transform.apply(DecodedImage.open(PLAIN["odd"](), 3, name="it"))] * 2)
    assert batch.to("cpu", memory_format=torch.channels_last).is_contiguous(memory_format=torch.channels_last)
    assert batch.to(torch.device("cpu"), non_blocking=True).shape == (2, 3, 96, 80)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FILES)
def test_a_gpu_makes_the_same_within_tolerance(name: str) -> None:
    for make in (eval_transform, train):
        assert_within(both(make, FILES[name](), SPEC, exact=True, device="cuda"), (2.0, 40))


@pytest.mark.gpu
def test_a_gpu_names_a_damaged_file_too() -> None:
    transform = DeviceTransform(eval_transform(SPEC))
    sources = [
        transform.apply(DecodedImage.open(data, 3, name="it")) for data in (PLAIN["odd"](), damaged(PLAIN["odd"]()))
    ]
    with pytest.raises(UnreadableError, match="it cannot be read"):
        transform.join(sources).to("cuda")
