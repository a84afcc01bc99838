"""A stored table gives the very same images back, and says so where it cannot."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetune.data.image_stores import ArrayStore
from finetune.data.sources import csv, digits, folder
from finetune.data.splits import make_splits
from finetune.data.table import ImageTable, build_frame, load_saved_table, object_column
from finetune.data.verification import verify_images
from finetune.errors import DataError

STORE = ArrayStore(np.zeros((1, 8, 8), dtype=np.uint8))
PHOTOS = [f"{label}/{number}.png" for label in ("ants", "bees") for number in range(5)]


def split_table(root: Path) -> ImageTable:
    return make_splits(verify_images(folder(str(root)), "error"), val=0.2, test=0.2, seed=0)


@pytest.fixture
def several(make_images: Callable[..., Path]) -> ImageTable:
    """A table of images with any number of labels, groups and a given test split."""
    root = make_images(f"{number}.png" for number in range(6))
    (root / "labels.csv").write_text(
        "path,label,split,patient\n0.png,a;b,,p1\n1.png,a,test,\n2.png,,,p2\n3.png,b,,p1\n4.png,a,,p3\n5.png,b;a,,\n"
    )
    return csv(str(root / "labels.csv"), label_separator=";", group_columns=["patient"])


def test_class_numbers_are_positions_in_the_sorted_vocabulary() -> None:
    table = digits()
    assert table.labels == tuple("0123456789")
    assert table.targets().dtype == np.int64
    assert [table.labels[number] for number in table.targets()] == table.frame["label"].tolist()


def test_several_labels_are_multi_hot(several: ImageTable) -> None:
    assert several.targets().dtype == np.float32
    assert several.targets().tolist() == [[1, 1], [1, 0], [0, 0], [0, 1], [1, 0], [1, 1]]


def test_counts_and_sizes_add_up(several: ImageTable) -> None:
    table = make_splits(several, val=0.2, test=0.2, seed=0)
    assert sum(table.sizes().values()) == len(table)
    assert sum(found["a"] for found in table.counts().values()) == 4
    assert sorted(np.concatenate([table.rows(split) for split in ("train", "val", "test")])) == list(range(6))


def test_nothing_stays_none_and_a_tuple_a_tuple() -> None:
    column = object_column(["a", None, ("b", "c"), ("d", "e")])
    assert column.tolist() == ["a", None, ("b", "c"), ("d", "e")]
    frame = build_frame({"id": ["1", "2"], "path": ["1", "2"], "label": ["x", "y"], "split": ["train", None]})
    assert frame["split"].tolist() == ["train", None]
    assert frame["digest"].tolist() == [None, None]
    assert all(kind == np.dtype(object) for kind in frame.dtypes)


def test_storing_changes_no_value(several: ImageTable, tmp_path: Path) -> None:
    for number, table in enumerate((several, verify_images(several, "error"))):
        file = tmp_path / f"{number}.parquet"
        table.save(file)
        frame, meta = load_saved_table(file)
        for name in table.frame.columns:
            assert frame[name].tolist() == table.frame[name].tolist(), name
        again = ImageTable(frame, tuple(meta["labels"]), meta["task"], table.store, tuple(meta["groups"]))
        assert again.labels == table.labels and again.groups == ("patient",)
        assert again.fingerprint() == table.fingerprint()
        assert make_splits(again, val=0.2, test=0.2, seed=1, group="patient").fingerprint() == (
            make_splits(table, val=0.2, test=0.2, seed=1, group="patient").fingerprint()
        )


def test_fingerprint_is_that_of_the_data_not_of_the_order_or_place(make_images: Callable[..., Path]) -> None:
    table = split_table(make_images(PHOTOS))
    moved = split_table(make_images(PHOTOS, root="elsewhere"))
    shuffled = replace(table, frame=table.frame.sample(frac=1, random_state=0).reset_index(drop=True))
    inferred = replace(table, frame=pd.DataFrame(table.frame.to_dict("list")))
    assert table.fingerprint() == moved.fingerprint() == shuffled.fingerprint() == inferred.fingerprint()


@pytest.mark.parametrize("column", ["id", "label", "split", "digest"])
def test_fingerprint_changes_with_each_thing_that_matters(column: str, make_images: Callable[..., Path]) -> None:
    table = split_table(make_images(PHOTOS))
    frame = table.frame.copy()
    frame.loc[0, column] = "bees" if column == "label" else "other"
    assert replace(table, frame=frame).fingerprint() != table.fingerprint()


def test_stored_splits_are_used_again_whatever_would_be_made_now(
    make_images: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_images(PHOTOS)
    table = split_table(root)
    table.save(tmp_path / "table.parquet")
    make_images(["ants/new.png", "cicadas/1.png"])
    again = folder(str(root)).with_splits_of(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(again.frame, table.frame)
    assert again.labels == ("ants", "bees")
    assert "2 images are new since the run began and are left out (first: ants/new.png)" in caplog.text


def test_images_may_move_to_another_root(make_images: Callable[..., Path], tmp_path: Path) -> None:
    root = make_images(PHOTOS)
    table = split_table(root)
    table.save(tmp_path / "table.parquet")
    root.rename(tmp_path / "moved")
    again = folder(str(tmp_path / "moved")).with_splits_of(tmp_path / "table.parquet")
    assert again.fingerprint() == table.fingerprint()
    assert all(Path(path).is_file() for path in again.frame["path"])


def test_missing_images_of_a_run_are_an_error(make_images: Callable[..., Path], tmp_path: Path) -> None:
    root = make_images(PHOTOS)
    split_table(root).save(tmp_path / "table.parquet")
    (root / "bees" / "3.png").unlink()
    with pytest.raises(DataError, match=r"1 of the run's 10 images are gone \(first: bees/3.png\).*data.root"):
        folder(str(root)).with_splits_of(tmp_path / "table.parquet")


def test_changed_images_of_a_run_are_an_error(make_images: Callable[..., Path], tmp_path: Path) -> None:
    root = make_images(PHOTOS)
    split_table(root).save(tmp_path / "table.parquet")
    (root / "bees" / "3.png").write_bytes((root / "bees" / "2.png").read_bytes())
    with pytest.raises(DataError, match=r"1 of the run's 10 images have changed since \(first: bees/3.png\)"):
        folder(str(root)).with_splits_of(tmp_path / "table.parquet")


def test_changed_labels_of_a_run_are_an_error(several: ImageTable, tmp_path: Path) -> None:
    several.save(tmp_path / "table.parquet")
    labels = several.frame["label"].tolist()
    labels[0] = ("a",)
    changed = replace(several, frame=several.frame.assign(label=object_column(labels)))
    with pytest.raises(DataError, match=r"1 of the run's 6 images have another label now \(first: 0.png"):
        changed.with_splits_of(tmp_path / "table.parquet")


def test_images_skipped_as_unreadable_stay_out(
    make_images: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_images(PHOTOS)
    (root / "ants" / "0.png").write_bytes(b"broken")
    table = make_splits(verify_images(folder(str(root)), "skip"), val=0.2, test=0.2, seed=0)
    table.save(tmp_path / "table.parquet")
    caplog.clear()
    again = folder(str(root)).with_splits_of(tmp_path / "table.parquet")
    assert again.skipped == ("ants/0.png",)
    assert len(again) == 9
    assert "new since" not in caplog.text


def test_another_file_is_no_stored_table(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("nothing")
    pd.DataFrame({"id": ["1"]}).to_parquet(tmp_path / "other.parquet")
    for name in ("text.parquet", "other.parquet", "missing.parquet"):
        with pytest.raises(DataError, match="is not the stored table of a run"):
            digits().with_splits_of(tmp_path / name)


def test_fifty_thousand_rows_take_seconds(tmp_path: Path) -> None:
    number = 50_000
    names = [f"{row:06d}" for row in range(number)]
    labels = [f"class {row % 100}" for row in range(number)]
    frame = build_frame({"id": names, "path": ["0"] * number, "label": labels, "split": [None] * number})
    table = ImageTable(frame, tuple(sorted(set(labels))), "multiclass", STORE)
    started = time.process_time()
    table = make_splits(verify_images(table, "error"), val=0.1, test=0.1, seed=0)
    table.save(tmp_path / "table.parquet")
    again = table.with_splits_of(tmp_path / "table.parquet")
    assert again.fingerprint() == table.fingerprint()
    assert again.targets().shape == (number,)
    assert time.process_time() - started < 20
