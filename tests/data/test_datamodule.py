"""Batches are the same whatever reads them, and an image that cannot be read stops the run."""

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from configured import settings_for
from PIL import Image

from finetune.config.settings.training_groups import Augment
from finetune.data.datamodule import ImageBatch, ImageData, seeded
from finetune.data.image_stores import ArrayStore
from finetune.data.resampling import Balance
from finetune.data.sources import csv, folder
from finetune.data.splits import make_splits
from finetune.data.table import ImageTable, build_frame
from finetune.data.transforms import InputSpec, eval_transform
from finetune.data.verification import verify_images
from finetune.errors import ConfigError, DataError

SPEC = InputSpec(3, 16, 16, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)
STRONG = settings_for(Augment, color_jitter=0.4, rand_augment="rand-m7-mstd0.5-inc1", erase=0.5, horizontal_flip=0.5)


@pytest.fixture
def table(make_images: Callable[..., Path]) -> ImageTable:
    """Forty files of two classes, split."""
    root = make_images(f"{label}/{number}.png" for label in ("a", "b") for number in range(20))
    return make_splits(verify_images(folder(str(root)), "error"), val=0.2, test=0.2, seed=0)


def assert_equal(one: list[ImageBatch], other: list[ImageBatch]) -> None:
    for batch, twin in zip(one, other, strict=True):
        assert batch.keys() == twin.keys()
        assert all(torch.equal(batch[name], twin[name]) for name in batch)


def test_batches_are_bitwise_the_same_for_any_number_of_workers(table: ImageTable) -> None:
    epochs: dict[int, list[list[ImageBatch]]] = {}
    for workers in (0, 2):
        loader = ImageData(table, SPEC, STRONG, batch_size=7, workers=workers, seed=3).loader("train", augmented=True)
        epochs[workers] = []
        for epoch in (0, 1):
            loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
            epochs[workers].append(list(loader))
    for one, other in zip(epochs[0], epochs[2], strict=True):
        assert_equal(one, other)
    assert not torch.equal(epochs[0][0][0]["row"], epochs[0][1][0]["row"])


def test_an_image_is_varied_alike_in_a_repeated_epoch_and_otherwise_in_the_next(table: ImageTable) -> None:
    loader = ImageData(table, SPEC, STRONG, batch_size=24, seed=3).loader("train", augmented=True)

    def pixels(epoch: int) -> dict[int, torch.Tensor]:
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        return {int(row): image for batch in loader for row, image in zip(batch["row"], batch["image"], strict=True)}

    first, again, other = pixels(0), pixels(0), pixels(1)
    assert all(torch.equal(first[row], again[row]) for row in first)
    assert sum(torch.equal(first[row], other[row]) for row in first) <= 1


def test_a_batch_holds_image_target_row_and_valid(table: ImageTable) -> None:
    data = ImageData(table, SPEC, settings_for(Augment), eval_batch_size=5)
    rows = []
    for batch in data.test_dataloader():
        number = len(batch["row"])
        assert batch["image"].shape == (number, 3, 16, 16) and batch["image"].dtype == torch.float32
        assert batch["target"].tolist() == table.targets()[batch["row"].numpy()].tolist()
        assert batch["target"].dtype == batch["row"].dtype == torch.int64
        assert batch["valid"].dtype == torch.bool and batch["valid"].all()
        for row, image in zip(batch["row"].tolist(), batch["image"], strict=True):
            expected = eval_transform(SPEC)(table.store.read(table.frame["path"][row], 3))
            assert torch.equal(image, expected)
        rows += batch["row"].tolist()
    assert rows == table.rows("test").tolist()


def test_several_labels_are_floats(make_images: Callable[..., Path]) -> None:
    root = make_images(f"{number}.png" for number in range(4))
    (root / "labels.csv").write_text(
        "path,a,b,split\n0.png,1,1,train\n1.png,0,0,train\n2.png,0,1,val\n3.png,1,0,test\n"
    )
    data = ImageData(
        csv(str(root / "labels.csv"), label_columns=["a", "b"]),
        SPEC,
        settings_for(Augment, enabled=False),
        batch_size=2,
    )
    (batch,) = data.train_dataloader()
    assert batch["target"].dtype == torch.float32
    assert sorted(batch["target"].tolist()) == [[0, 0], [1, 1]]


@pytest.mark.parametrize("augment", [STRONG, settings_for(Augment, enabled=False)])
def test_reading_images_leaves_the_global_generators_alone(table: ImageTable, augment: Augment) -> None:
    data = ImageData(table, SPEC, augment, batch_size=4)
    with seeded(11):
        expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(11)
    np.random.seed(11)
    torch.manual_seed(11)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert len(list(loader)) == len(loader)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def read_until_error(loader: Iterable[ImageBatch]) -> tuple[list[int], str]:
    """Return the rows that could be read, and the message of the error after them."""
    seen: list[int] = []
    try:
        for batch in loader:
            seen += batch["row"].tolist()
    except DataError as error:
        error.__traceback__ = None  # its frames would keep the workers until the next garbage collection
        return seen, str(error)
    return seen, ""


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_file_that_becomes_unreadable_stops_the_run_alike_with_any_number_of_workers(
    split: str, table: ImageTable
) -> None:
    row = table.rows(split)[-1]
    lost = Path(table.frame["path"][row])
    lost.write_bytes(lost.read_bytes()[:60])
    outcomes = []
    for workers in (0, 2):
        data = ImageData(table, SPEC, settings_for(Augment), batch_size=4, eval_batch_size=4, workers=workers)
        outcomes.append(read_until_error(data.train_dataloader() if split == "train" else data.test_dataloader()))
    assert outcomes[0] == outcomes[1]
    seen, message = outcomes[0]
    assert row not in seen
    assert message.startswith(f"{lost} cannot be read: ") and "\n" not in message


def test_balanced_training_draws_each_class_equally_often() -> None:
    labels = ["common"] * 110 + ["rare"] * 15 + ["common", "rare"] * 2
    splits = ["train"] * 125 + ["val"] * 2 + ["test"] * 2
    ids = [str(number) for number in range(len(labels))]
    frame = build_frame({"id": ids, "path": ids, "label": labels, "split": splits})
    store = ArrayStore(np.zeros((len(ids), 8, 8), dtype=np.uint8))
    table = ImageTable(frame, ("common", "rare"), "multiclass", store)
    batches = ImageData(
        table, SPEC, settings_for(Augment, enabled=False), batch_size=16, balance=Balance("balanced_sampler")
    ).loader("train", augmented=True)
    drawn = []
    for epoch in range(30):
        batches.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        drawn += [table.targets()[draw.row] for batch in batches.batch_sampler for draw in batch]  # type: ignore[union-attr]
    assert abs(np.mean(drawn) - 0.5) < 0.03


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_have_the_channels_of_the_weights(channels: int, table: ImageTable) -> None:
    spec = replace(SPEC, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)
    batch = next(iter(ImageData(table, spec, settings_for(Augment, color_jitter=0.2)).train_dataloader()))
    assert batch["image"].shape[1] == channels


def test_two_ranks_score_every_image_once(table: ImageTable) -> None:
    data = ImageData(table, SPEC, settings_for(Augment), eval_batch_size=3)
    loaders = [data.loader("val", augmented=False, rank=rank, world_size=2) for rank in range(2)]
    assert len(loaders[0]) == len(loaders[1])
    rows = [row for loader in loaders for batch in loader for row in batch["row"][batch["valid"]].tolist()]
    assert sorted(rows) == table.rows("val").tolist()


def test_sizes_that_make_no_sense_and_empty_splits_are_errors(table: ImageTable) -> None:
    for options, message in (
        ({"batch_size": 0}, "data.batch_size=0 is too small. Use 1 or more"),
        ({"eval_batch_size": -1}, "data.eval_batch_size=-1"),
        ({"workers": -1}, "data.workers=-1 is too small. Use 0 or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            ImageData(table, SPEC, settings_for(Augment), **options)
    with pytest.raises(DataError, match="no images in the split 'tset'"):
        ImageData(table, SPEC, settings_for(Augment)).loader("tset", augmented=False)


def test_a_batch_is_made_as_the_input_says(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(5):
            pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((400, 300)).save(tmp_path / label / f"{number}.jpg")
    table = make_splits(verify_images(folder(str(tmp_path)), "error"), val=0.2, test=0.2, seed=0)
    exact, fast = (
        next(iter(ImageData(table, replace(SPEC, exact=exact), settings_for(Augment), batch_size=6).train_dataloader()))
        for exact in (True, False)
    )
    assert torch.equal(exact["row"], fast["row"])
    assert 0 < (exact["image"] - fast["image"]).abs().mean() * 127.5 < 1


def test_a_view_of_an_image_depends_on_its_content_alone(table: ImageTable) -> None:
    def pixels(images: ImageData, view: int, ranks: int) -> dict[int, torch.Tensor]:
        loaders = [images.view_loader("test", view, rank=rank, world_size=ranks) for rank in range(ranks)]
        return {
            int(row): image
            for batch in (batch for loader in loaders for batch in loader)
            for row, image, valid in zip(batch["row"], batch["image"], batch["valid"], strict=True)
            if valid
        }

    few, many = ImageData(table, SPEC, STRONG, eval_batch_size=2), ImageData(table, SPEC, STRONG, seed=5, workers=2)
    (plain,) = ImageData(table, SPEC, STRONG).test_dataloader()
    views = [pixels(few, view, 3) for view in range(3)]
    for view, found in enumerate(views):
        again = pixels(many, view, 1)
        assert found.keys() == again.keys() == set(plain["row"].tolist())
        assert all(torch.equal(found[row], again[row]) for row in found)
    for row, image in zip(plain["row"].tolist(), plain["image"], strict=True):
        assert torch.equal(views[0][row], image)
        assert not torch.equal(views[1][row], image) and not torch.equal(views[1][row], views[2][row])
