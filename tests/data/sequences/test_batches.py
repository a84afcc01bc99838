"""A sequence is a row of the table: its frames stay together and in order, whatever is done with the table."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from configured import settings_for
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from finetune.config.settings.training_groups import Augment
from finetune.data.sequences.batches import SequenceData, build_datamodule
from finetune.data.sequences.frame_store import SequenceStore, evenly_spaced, frame_table, sequence_limit
from finetune.data.sources import digits, folder, sequence_table, sequences
from finetune.data.splits import make_splits
from finetune.data.table import ImageTable
from finetune.data.transforms import InputSpec
from finetune.data.verification import verify_images
from finetune.errors import ConfigError, DataError

Make = Callable[..., Path]
SPEC = InputSpec(3, 16, 16, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)


def clips(*places: str, frames: int = 3) -> list[str]:
    return [f"{place}/{number}.png" for place in places for number in range(frames)]


def frames_of(table: ImageTable, name: str, root: Path) -> list[str]:
    """Return the frames of a sequence that are looked at, from the root."""
    assert isinstance(table.store, SequenceStore)
    return [Path(frame).relative_to(root).as_posix() for frame in table.store.frames[name]]


@given(st.integers(1, 200), st.integers(1, 40))
def test_frames_are_spread_evenly_and_no_more_than_asked_for(number: int, limit: int) -> None:
    chosen = evenly_spaced(number, limit)
    assert len(chosen) == min(number, limit)
    assert chosen == sorted(set(chosen))
    steps = np.diff([-1 - chosen[0], *chosen, 2 * number - 1 - chosen[-1]])  # mirrored at both ends
    assert chosen == list(range(number)) or np.abs(steps - number / limit).max() <= 1


def test_a_folder_of_images_in_a_class_folder_is_a_sequence(make_images: Make) -> None:
    names = clips("up/a", "up/b", "down/day/c")
    names += [f"down/d/frame{number}.png" for number in (10, 9, 2, 1)]
    root = make_images(names)
    table = sequences(str(root), frames=3)
    assert table.frame["id"].tolist() == ["down/d", "down/day/c", "up/a", "up/b"]
    assert table.frame["label"].tolist() == ["down", "down", "up", "up"]
    assert set(table.frame["split"]) == {None}
    assert sequence_limit(table) == 3
    assert frames_of(table, "up/a", root) == ["up/a/0.png", "up/a/1.png", "up/a/2.png"]
    assert frames_of(table, "down/d", root) == ["down/d/frame1.png", "down/d/frame9.png", "down/d/frame10.png"]
    assert table.store.read("up/a", 3).size == (3 * 12, 10)  # three frames side by side


def test_split_folders_may_stand_above_the_classes(make_images: Make) -> None:
    root = make_images([f"{split}/{label}/x/{n}.png" for split in ("train", "val") for label in "ab" for n in (0, 1)])
    frame = sequences(str(root), frames=4).frame
    assert dict(zip(frame["id"], frame["split"], strict=True)) == {
        "train/a/x": "train", "train/b/x": "train", "val/a/x": "test", "val/b/x": "test",
    }  # fmt: skip


def test_single_images_are_no_sequences_and_the_error_says_what_to_type(make_images: Make) -> None:
    root = make_images(["up/0.png", "down/0.png"])
    with pytest.raises(DataError, match="2 images lie in class folders .*Use data=folder for single images"):
        sequences(str(root), frames=4)
    with pytest.raises(ConfigError, match="data.frames=0 must be"):
        sequences(str(make_images(clips("up/a", "down/b"), root="others")), frames=0)


def written(folder: Path, lines: list[str]) -> str:
    (folder / "frames.csv").write_text("\n".join(["path,clip,time,label,split,site", *lines]))
    return str(folder / "frames.csv")


def of_table(path: str, frames: int = 9, **options: object) -> ImageTable:
    return sequence_table(path, frames, sequence_column="clip", order_column="time", **options)  # type: ignore[arg-type]


def test_a_table_names_sequences_and_orders_their_frames_by_number(make_images: Make) -> None:
    root = make_images(["0.png", "1.png", "2.png"])
    lines = ["0.png,a,10,up,train,x", "1.png,a,9.5,up,train,x", "2.png,b,1,down,test,y", "0.png,a,-1,up,train,x"]
    table = of_table(written(root, lines), group_columns=["site"])
    assert table.frame[["id", "label", "split", "site"]].to_numpy().tolist() == [
        ["a", "up", "train", "x"], ["b", "down", "test", "y"],
    ]  # fmt: skip
    assert frames_of(table, "a", root) == ["0.png", "1.png", "0.png"]  # an image may be a frame more than once
    several = of_table(written(root, ["0.png,a,1,up|left,,x", "1.png,b,1,,,x"]), label_separator="|")
    assert several.task == "multilabel"
    assert several.frame["label"].tolist() == [("left", "up"), ()]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1.png,a,2,down,train,x", "its frames have another label each"),
        ("1.png,a,2,up,test,x", "its frames have another split each"),
        ("1.png,a,2,up,train,y", "its frames have another site each"),
        ("1.png,a,1.0,up,train,x", "two frames of the sequence 'a' the same place"),
        ("1.png,a,,up,train,x", "have no time"),
        ("9.png,a,2,up,train,x", "do not exist"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(line: str, said: str, make_images: Make) -> None:
    root = make_images(["0.png", "1.png"])
    with pytest.raises(DataError, match=said):
        of_table(written(root, ["0.png,a,1,up,train,x", "0.png,b,1,down,test,x", line]), group_columns=["site"])


def test_splits_are_of_whole_sequences(make_images: Make) -> None:
    root = make_images(clips(*(f"{label}/{number}" for label in ("up", "down") for number in range(10))))
    table = make_splits(verify_images(sequences(str(root), frames=3), "error"), val=0.2, test=0.2, seed=0)
    assert table.sizes() == {"train": 12, "val": 4, "test": 4}
    frames, starts = frame_table(table)
    owner = np.repeat(np.arange(len(table)), np.diff(starts))
    assert frames.frame["split"].tolist() == table.frame["split"].to_numpy()[owner].tolist()
    sides: dict[str, set[str]] = {}
    for path, split in zip(frames.frame["path"], frames.frame["split"], strict=True):
        sides.setdefault(path, set()).add(split)
    assert max(map(len, sides.values())) == 1


def test_a_sequence_with_an_unreadable_frame_is_named_or_left_out(make_images: Make) -> None:
    root = make_images(clips("up/a", "up/b", "down/c", "down/d"))
    (root / "up/b/1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 4 sequences cannot be read \(first: up/b: its frame .*1.png: empty"):
        verify_images(sequences(str(root), frames=3), "error")
    table = verify_images(sequences(str(root), frames=3), "skip")
    assert table.skipped == ("up/b",)
    assert table.frame["id"].tolist() == ["down/c", "down/d", "up/a"]
    assert verify_images(sequences(str(root), frames=1), "skip").skipped == ("up/b",)  # its middle frame is looked at
    assert verify_images(sequences(str(root), frames=2), "skip").skipped == ()


def test_a_resumed_run_gets_the_same_sequences_or_is_told_what_changed(make_images: Make, tmp_path: Path) -> None:
    root = make_images(clips(*(f"{label}/{number}" for label in ("up", "down") for number in range(4))))
    table = make_splits(verify_images(sequences(str(root), frames=2), "error"), val=0.25, test=0.25, seed=0)
    table.save(tmp_path / "table.parquet")
    again = sequences(str(root), frames=2).with_splits_of(tmp_path / "table.parquet")
    assert again.fingerprint() == table.fingerprint()
    Image.new("RGB", (12, 10)).save(root / "up/0/2.png")
    with pytest.raises(DataError, match=r"1 of the run's 8 images have changed since \(first: up/0\)"):
        sequences(str(root), frames=2).with_splits_of(tmp_path / "table.parquet")


@pytest.fixture
def data(make_images: Make) -> SequenceData:
    names = [f"{label}/{clip}/{n}.png" for label in ("up", "down") for clip in range(3) for n in range(clip + 1)]
    table = sequences(str(make_images(names)), frames=4)
    table = make_splits(verify_images(table, "error"), val=0.34, test=0.34, seed=0)
    found = SequenceData(
        table, SPEC, settings_for(Augment, crop_scale=(0.3, 0.9), horizontal_flip=0.5), batch_size=2, seed=3
    )
    assert build_datamodule(table) is SequenceData
    return found


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_sequence_is_evaluated_once_with_all_its_frames(data: SequenceData, world_size: int) -> None:
    seen = {}
    for rank in range(world_size):
        for batch in data.view_loader("val", 0, rank=rank, world_size=world_size):
            parts = torch.split(batch["image"], batch["frames"].tolist())
            for row, valid, images in zip(batch["row"].tolist(), batch["valid"].tolist(), parts, strict=True):
                if valid:
                    assert row not in seen
                    seen[row] = images
    assert sorted(seen) == data.table.rows("val").tolist()
    alone = data.frames.loader("val", augmented=False)
    images = torch.cat([batch["image"] for batch in alone])
    assert torch.equal(torch.cat([seen[row] for row in sorted(seen)]), images)
    with pytest.raises(ConfigError, match="views=2 is for single images"):
        data.view_loader("val", 1)


def test_all_frames_of_a_sequence_are_varied_in_the_same_way(make_images: Make) -> None:
    root = make_images(["up/a/0.png", "down/b/0.png"])
    for place in ("up/a", "down/b"):
        for number in (1, 2, 3):
            (root / place / f"{number}.png").write_bytes((root / place / "0.png").read_bytes())
    table = sequences(str(root), frames=4)
    table = ImageTable(table.frame.assign(split="train"), table.labels, table.task, table.store)
    data = SequenceData(
        table, SPEC, settings_for(Augment, crop_scale=(0.1, 0.5), rand_augment="rand-m7-mstd0.5"), batch_size=2
    )
    (batch,) = data.loader("train", augmented=True)
    first, second = batch["image"].view(2, 4, *batch["image"].shape[1:])
    for images in (first, second):
        assert all(torch.equal(images[0], image) for image in images)
    (plain,) = data.loader("train", augmented=False)
    assert not torch.equal(plain["image"], batch["image"])


def test_what_is_for_single_images_is_refused(data: SequenceData, make_images: Make) -> None:
    with pytest.raises(ConfigError, match="data.device_pixels=true is for single images"):
        SequenceData(data.table, SPEC, settings_for(Augment), device_pixels=True)
    assert sequence_limit(digits()) is None
    assert sequence_limit(folder(str(make_images(["a/0.png", "b/0.png"], root="single")))) is None
