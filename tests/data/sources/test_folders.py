"""Class folders become the table that their owner means, or an error that says what to type."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.data.sources import digits, folder
from finetune.data.sources.table_builder import require_classes
from finetune.data.sources.unlabelled import unlabelled
from finetune.data.splits import make_splits
from finetune.data.verification import verify_images
from finetune.errors import ConfigError, DataError
from finetune.evaluation.image_files import find_images

Make = Callable[..., Path]


def names(*folders: str, number: int = 2) -> list[str]:
    return [f"{folder}/{index}.png" for folder in folders for index in range(number)]


def test_digits_are_1797_and_have_no_splits() -> None:
    table = digits()
    assert len(table) == 1797
    assert set(table.frame["split"]) == {None}
    assert np.asarray(table.store.read("digits/0000", 1)).max() == 255 * 15 // 16


def test_a_folder_is_a_class_and_ids_are_relative(make_images: Make) -> None:
    root = make_images(names("dogs", "cats"))
    table = folder(str(root))
    assert table.labels == ("cats", "dogs")
    assert table.frame["id"].tolist() == ["cats/0.png", "cats/1.png", "dogs/0.png", "dogs/1.png"]
    assert table.frame["label"].tolist() == ["cats", "cats", "dogs", "dogs"]
    assert set(table.frame["split"]) == {None}
    assert [Path(path) for path in table.frame["path"]] == [root / name for name in table.frame["id"]]


@pytest.mark.parametrize("train", ["train", "Train", "training"])
@pytest.mark.parametrize("val", ["val", "valid", "validation", "VALIDATION", "dev"])
@pytest.mark.parametrize("test", ["test", "Testing"])
def test_every_spelling_of_a_split_is_understood(train: str, val: str, test: str, make_images: Make) -> None:
    root = make_images([f"{split}/{label}/1.png" for split in (train, val, test) for label in ("a", "b")])
    frame = folder(str(root)).frame
    assert dict(zip(frame["id"], frame["split"], strict=True)) == {
        f"{spelling}/{label}/1.png": split
        for spelling, split in ((train, "train"), (val, "val"), (test, "test"))
        for label in ("a", "b")
    }


def test_missing_class_folder_does_not_shift_labels(make_images: Make) -> None:
    root = make_images(names("train/a", "train/b", "train/c", "val/b", "val/c", "test/c"))
    table = make_splits(folder(str(root)), val=0.1, test=0.1, seed=0)
    assert table.labels == ("a", "b", "c")
    for identity, target in zip(table.frame["id"], table.targets(), strict=True):
        assert table.labels[target] == identity.split("/")[1]


def test_class_that_is_only_tested_is_an_error(make_images: Make) -> None:
    root = make_images(names("train/a", "train/b", "test/a", "test/b", "test/c"))
    with pytest.raises(DataError, match=r"1 of 3 classes have no training image \(first: 'c'\)"):
        make_splits(folder(str(root)), val=0.3, test=0.1, seed=0)


def test_val_without_test_is_the_test_set_and_is_said_once(make_images: Make, caplog: pytest.LogCaptureFixture) -> None:
    root = make_images(names("train/a", "train/b", number=10) + names("val/a", "val/b", number=3))
    with caplog.at_level(logging.INFO):
        table = make_splits(folder(str(root)), val=0.2, test=0.2, seed=0)
    assert {name for name, split in zip(table.frame["id"], table.frame["split"], strict=True) if split == "test"} == {
        name for name in table.frame["id"] if name.startswith("val/")
    }
    assert table.sizes() == {"train": 16, "val": 4, "test": 6}
    assert len([record for record in caplog.records if "used as the test set" in record.message]) == 1


def test_val_can_be_kept_as_validation(make_images: Make) -> None:
    root = make_images(names("train/a", "train/b", number=10) + names("val/a", "val/b"))
    table = make_splits(folder(str(root), val_means="val"), val=0.2, test=0.2, seed=0)
    assert table.sizes() == {"train": 16, "val": 4, "test": 4}
    with pytest.raises(ConfigError, match="data.val_means=vall is not known.*Did you mean 'val'"):
        folder(str(root), val_means="vall")


def test_nested_folders_belong_to_their_class(make_images: Make) -> None:
    root = make_images(["a/2020/may/1.png", "a/2.png", "b/x/1.png", "b/x/train/1.png"])
    frame = folder(str(root)).frame
    assert sorted(zip(frame["id"], frame["label"], strict=True)) == [
        ("a/2.png", "a"), ("a/2020/may/1.png", "a"), ("b/x/1.png", "b"), ("b/x/train/1.png", "b"),
    ]  # fmt: skip


def test_hidden_files_and_folders_are_nothing(make_images: Make) -> None:
    root = make_images([*names("a", "b"), ".cache/1.png", "a/.thumbnails/1.png", "a/.1.png", "a/._2.png"])
    assert sorted(folder(str(root)).frame["id"]) == names("a", "b")


def test_files_that_are_no_images_are_left_out_with_one_warning(
    make_images: Make, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_images(names("a", "b"))
    for name in ("a/notes.txt", "b/Thumbs.db", "b/film.mpg"):
        (root / name).write_text("no image")
    (root / "README.md").write_text("no image")
    assert sorted(folder(str(root)).frame["id"]) == names("a", "b")
    assert [record.message for record in caplog.records] == [
        f"2 files of {root} are no images and are left out (first: a/notes.txt)."
    ]


def test_images_in_no_class_folder_are_left_out_with_a_warning(
    make_images: Make, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_images([*names("train/a", "train/b", "test/a"), "train/stray.png", "loose.png"])
    assert len(folder(str(root))) == 6
    assert "2 files of" in caplog.text and "stand in no class folder" in caplog.text


def test_any_readable_format_and_any_case_of_its_ending_is_read(make_images: Make) -> None:
    kinds = ["jpg", "JPEG", "png", "PNG", "gif", "bmp", "tif", "TIFF", "webp", "ppm", "jp2", "tga", "ico", "avif"]
    root = make_images([f"{label}/1.{kind}" for label in "ab" for kind in kinds])
    assert len(verify_images(folder(str(root)), "error")) == 2 * len(kinds)


def test_a_class_without_an_image_is_no_class_and_is_named(make_images: Make, caplog: pytest.LogCaptureFixture) -> None:
    root = make_images(names("a", "b"))
    (root / "empty").mkdir()
    assert folder(str(root)).labels == ("a", "b")
    assert "Folders without any image are no class: empty." in caplog.text


def test_a_class_of_one_image_is_an_error(make_images: Make) -> None:
    root = make_images([*names("a", "b"), "rare/1.png"])
    with pytest.raises(DataError, match=r"1 of 3 classes have fewer than 2 images \(first: 'rare'\)"):
        make_splits(folder(str(root)), val=0.2, test=0.2, seed=0)


def test_a_class_whose_images_are_all_unreadable_is_an_error(make_images: Make) -> None:
    root = make_images(names("a", "b", number=4))
    for file in (root / "b").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 2 classes have no image that can be read \(first: 'b'\)"):
        make_splits(verify_images(folder(str(root)), "skip"), val=0.2, test=0.2, seed=0)


def test_a_misspelt_root_names_the_nearest(make_images: Make) -> None:
    root = make_images(names("a", "b"))
    with pytest.raises(DataError, match="phots does not exist. Set data.root .* Did you mean 'photos'"):
        folder(str(root.parent / "phots"))
    with pytest.raises(DataError, match="Did you mean 'photos'"):
        folder(str(root.parent / "phots" / "train"))


def test_a_file_in_place_of_a_folder_says_so(make_images: Make) -> None:
    root = make_images(names("a", "b"))
    (root / "labels.csv").write_text("path,label\n")
    with pytest.raises(DataError, match="is a file.*data=csv data.path="):
        folder(str(root / "labels.csv"))


def test_a_folder_without_images_says_what_was_expected(tmp_path: Path, make_images: Make) -> None:
    with pytest.raises(DataError, match="holds no images in class folders. Expected .*/<class>/<image>"):
        folder(str(tmp_path))
    root = make_images(["1.png", "2.png"])
    with pytest.raises(DataError, match="holds no images in class folders"):
        folder(str(root))
    split = make_images(["train/1.png", "test/1.png"], root="splits")
    with pytest.raises(DataError, match="test, train without class folders in them"):
        folder(str(split))


def test_a_single_class_folder_is_an_error_that_looks_one_level_down(make_images: Make) -> None:
    root = make_images(names("inner/a", "inner/b"))
    with pytest.raises(DataError, match=rf"the same label \(inner\); .* set data.root={root}/inner"):
        require_classes(folder(str(root)))


def test_a_folder_of_one_class_is_read_since_a_run_can_be_scored_on_it(make_images: Make) -> None:
    table = folder(str(make_images(names("only"))))
    assert table.labels == ("only",) and len(table) == len(names("only"))
    with pytest.raises(DataError, match=r"All \d+ images have the same label \(only\)[^I]*$"):
        require_classes(table)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["1", "2", "3", "9", "10", "11", "12"], ["1", "2", "3", "9", "10", "11", "12"]),
        (["week 2", "week 10", "week 1"], ["week 1", "week 2", "week 10"]),
        (["1.10", "1.9", "1.2"], ["1.2", "1.9", "1.10"]),
        (["2", "02", "1", "010"], ["1", "02", "2", "010"]),
        (["10", "dog", "9", "cat"], ["9", "10", "cat", "dog"]),
        (["b", "B", "a"], ["B", "a", "b"]),
    ],
)
def test_classes_stand_in_natural_order(given: list[str], expected: list[str], make_images: Make) -> None:
    assert folder(str(make_images(names(*given)))).labels == tuple(expected)


def test_a_misspelt_split_folder_names_the_nearest(make_images: Make) -> None:
    root = make_images(names("trian/a", "trian/b", "test/a", "test/b"))
    with pytest.raises(DataError, match=r"folders of splits \(test\) and others \(trian\).*Did you mean 'train'"):
        folder(str(root))


def test_unknown_split_folders_are_taken_as_classes_with_a_warning(
    make_images: Make, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_images(names("first/a", "first/b", "second/a", "second/b"))
    assert folder(str(root)).labels == ("first", "second")
    assert "hold the same folders (a, b)" in caplog.text


def test_other_folders_without_images_do_not_disturb_splits(make_images: Make) -> None:
    root = make_images([*names("train/a", "train/b", "test/a"), "__MACOSX/._1.png"])
    (root / "annotations").mkdir()
    assert set(folder(str(root)).frame["split"]) == {"train", "test"}


def test_a_class_may_be_called_like_a_split(make_images: Make) -> None:
    table = folder(str(make_images(names("car", "train", "bus"))))
    assert table.labels == ("bus", "car", "train")
    assert set(table.frame["split"]) == {None}


def test_a_lone_test_folder_is_a_test_split(make_images: Make) -> None:
    table = folder(str(make_images(names("test/a", "test/b"))))
    assert table.labels == ("a", "b")
    assert set(table.frame["split"]) == {"test"}
    with pytest.raises(DataError, match="The train split is empty"):
        make_splits(table, val=0.2, test=0.2, seed=0)


def test_links_are_followed_once(make_images: Make) -> None:
    root = make_images(names("a", "b"))
    other = make_images(["1.png", "2.png"], root="other")
    (root / "c").symlink_to(other)
    (root / "a" / "more").symlink_to(other)
    (root / "b" / "loop").symlink_to(root / "b")
    assert sorted(folder(str(root)).frame["id"]) == sorted(
        [*names("a", "b"), "a/more/1.png", "a/more/2.png", "c/1.png", "c/2.png"]
    )


def test_names_that_are_not_text_are_an_error(make_images: Make) -> None:
    root = make_images(names("a", "b"))
    Image.new("L", (4, 4)).save(os.fsencode(str(root / "a")) + b"/caf\xe9.png")
    with pytest.raises(DataError, match="names of 1 files are not UTF-8"):
        folder(str(root))


def test_spaces_and_letters_of_any_script_are_kept(make_images: Make) -> None:
    table = folder(str(make_images(names("Bär & Löwe", "熊 猫"))))
    assert table.labels == ("Bär & Löwe", "熊 猫")
    assert len(verify_images(table, "error")) == 4


def test_labels_that_differ_only_in_capitals_are_named(make_images: Make, caplog: pytest.LogCaptureFixture) -> None:
    assert folder(str(make_images(names("Cat", "cat")))).labels == ("Cat", "cat")
    assert "'Cat' and 'cat' differ only in capitals" in caplog.text


@pytest.mark.parametrize(
    ("train", "held"),
    [
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set/training_set", "test_set/test_set"),
        ("training_set", "test_set"),
        ("Train", "Validation"),
        ("train-images", "valid"),
        ("dataset/train", "dataset/dev"),
        ("trainset", "testset"),
        ("archive/training_set/training_set", "archive/test_set/test_set"),
    ],
)
def test_splits_are_found_by_usual_names_and_one_level_deeper(train: str, held: str, make_images: Make) -> None:
    table = folder(
        str(make_images(names(*(f"{place}/{label}" for place in (train, held) for label in ("cat", "dog")))))
    )
    assert table.labels == ("cat", "dog")
    assert table.sizes() == {"train": 4, "val": 0, "test": 4}
    assert table.frame["id"].iloc[0].startswith(train) or table.frame["id"].iloc[0].startswith(held)


def test_what_stands_beside_splits_is_named(make_images: Make) -> None:
    root = make_images([*names("seg_train/seg_train/a", "seg_test/seg_test/a"), "seg_pred/seg_pred/1.png"])
    with pytest.raises(DataError, match=r"folders of splits \(seg_test, seg_train\) and others \(seg_pred\)"):
        folder(str(root))


@pytest.mark.parametrize("hidden", ["@eaDir/1.png", ".thumbnails", "__MACOSX", "Thumbs", "thumbnails", "@Recycle"])
@pytest.mark.parametrize("place", ["cat", ""])
def test_copies_of_a_system_are_left_out_and_said_once(
    hidden: str, place: str, make_images: Make, caplog: pytest.LogCaptureFixture
) -> None:
    if not place and hidden.lower().startswith("thumb"):
        pytest.skip("beside others it may be a class")
    path = f"{place}/{hidden}".lstrip("/")
    root = make_images([*names("cat", "dog"), *names(path), *names(f"dog/{hidden}")])
    with caplog.at_level("INFO"):
        table = folder(str(root))
    assert len(table) == 4 and table.labels == ("cat", "dog")
    assert sum("left out" in message for message in caplog.messages) == 1 and hidden.split("/")[0] in caplog.text
    assert len(find_images(root)) == 4


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (".heic", r"4 files of the kind \.heic .*convert them to JPEG"),
        (".DCM", r"4 files of the kind \.dcm .*pydicom"),
        (".npy", r"\.npy .*save each array"),
        (".nef", "rawpy"),
        (".zip", "unpack"),
        (".xyz", r"4 files of the kind \.xyz \(first: a/0\.xyz\)"),
        ("", "4 files without a file ending .*, which is PNG: name them with the ending"),
        (".png?w=200", r"of the kind \.png\?w=200 .*, which is PNG"),
    ],
)
def test_files_that_are_no_images_are_named_with_what_reads_them(ending: str, message: str, make_images: Make) -> None:
    root = make_images(names("a", "b"))
    for file in root.glob("*/*.png"):
        if ending in ("", ".png?w=200"):
            file.rename(file.with_name(file.stem + ending))
        else:
            file.with_name(file.stem + ending).write_text("something")
            file.unlink()
    for read in (lambda: folder(str(root)), lambda: unlabelled(str(root)), lambda: find_images(root)):
        with pytest.raises(DataError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)
