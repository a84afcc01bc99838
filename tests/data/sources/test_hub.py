"""A data set in the Hub's format becomes the table that its columns mean; offline, one line says what to do."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune.data.sources.hub import hub
from finetune.data.splits import make_splits
from finetune.data.verification import verify_images
from finetune.errors import DataError

datasets = pytest.importorskip("datasets")

CLASSES = datasets.ClassLabel(names=["dog", "cat"])


def image(number: int) -> Image.Image:
    return Image.fromarray(np.full((8, 9, 3), number, dtype=np.uint8))


def part(labels: list[Any], feature: Any = CLASSES, **columns: Any) -> Any:
    """Return a split with images of growing brightness."""
    features = {"image": datasets.Image(), "label": feature} | dict.fromkeys(columns, datasets.Value("string"))
    values = {"image": [image(number) for number in range(len(labels))], "label": labels, **columns}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def saved(folder: Path, **splits: Any) -> str:
    datasets.DatasetDict(splits).save_to_disk(folder)
    return str(folder)


def test_names_of_classes_are_labels_and_pixels_are_read(tmp_path: Path) -> None:
    part([0, 1, 0, 1]).save_to_disk(tmp_path / "pets")
    table = hub(str(tmp_path / "pets"))
    assert table.labels == ("cat", "dog")
    assert table.frame["label"].tolist() == ["dog", "cat", "dog", "cat"]
    assert set(table.frame["split"]) == {None}
    for number, path in enumerate(table.frame["path"]):
        assert (np.asarray(table.store.read(path, 3)) == number).all()
    assert verify_images(table, "error").frame["digest"].nunique() == 4


def test_splits_of_the_data_set_are_kept(tmp_path: Path) -> None:
    name = saved(tmp_path / "pets", train=part([0, 1] * 10), validation=part([0, 1]), test=part([1, 0]))
    table = make_splits(verify_images(hub(name), "error"), val=0.2, test=0.2, seed=0)
    assert table.sizes() == {"train": 20, "val": 2, "test": 2}
    assert table.frame["id"][20] == "validation/0000000"


def test_a_missing_split_is_made_from_train(tmp_path: Path) -> None:
    name = saved(tmp_path / "pets", train=part([0, 1] * 10), test=part([1, 0]))
    table = make_splits(hub(name), val=0.2, test=0.2, seed=0)
    assert table.sizes() == {"train": 16, "val": 4, "test": 2}


def test_images_without_a_label_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = hub(saved(tmp_path / "pets", train=part([0, 1, 0, 1]), test=part([-1, -1, 1])))
    assert len(table) == 5
    assert "2 of 3 images of the split test have no label and are left out." in caplog.text
    assert (np.asarray(table.store.read(table.frame["path"][4], 1)) == 2).all()


@pytest.mark.parametrize(
    ("feature", "labels"),
    [(datasets.Value("string"), ["b", "a", "b"]), (datasets.Value("int64"), [7, 3, 7])],
)
def test_labels_may_be_text_or_numbers(feature: Any, labels: list[Any], tmp_path: Path) -> None:
    part(labels, feature).save_to_disk(tmp_path / "pets")
    assert hub(str(tmp_path / "pets")).frame["label"].tolist() == [str(label) for label in labels]


def test_lists_of_labels_are_several_labels(tmp_path: Path) -> None:
    part([[0], [1, 0], []], datasets.List(CLASSES)).save_to_disk(tmp_path / "pets")
    table = hub(str(tmp_path / "pets"))
    assert table.task == "multilabel"
    assert table.frame["label"].tolist() == [("dog",), ("cat", "dog"), ()]


def test_the_store_works_in_worker_processes(tmp_path: Path) -> None:
    part([0, 1]).save_to_disk(tmp_path / "pets")
    table = hub(str(tmp_path / "pets"))
    again = pickle.loads(pickle.dumps(table.store))
    assert again.content("train/0000001") == table.store.content("train/0000001")


def test_damaged_and_missing_images_are_named(tmp_path: Path) -> None:
    content = [{"bytes": b"no image", "path": None}, None, image(1), image(2)]
    columns = {"image": content, "label": [0, 1, 0, 1]}
    features = datasets.Features({"image": datasets.Image(), "label": CLASSES})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "pets")
    with pytest.raises(DataError, match=r"^2 of 4 images cannot be read \(first: train/0000000: ") as caught:
        verify_images(hub(str(tmp_path / "pets")), "error")
    assert str(tmp_path) not in str(caught.value)


def test_a_misspelt_column_names_the_nearest(tmp_path: Path) -> None:
    part([0, 1], note=["x", "y"]).save_to_disk(tmp_path / "pets")
    name = str(tmp_path / "pets")
    with pytest.raises(DataError, match="no column 'lable' .* Did you mean 'label'.* Set data.label_column"):
        hub(name, label_column="lable")
    with pytest.raises(DataError, match="no column 'img' .* Set data.image_column"):
        hub(name, image_column="img")
    with pytest.raises(DataError, match="The column 'label' .* holds no images. Set data.image_column"):
        hub(name, image_column="label")


def test_without_a_network_one_line_says_how_to_give_a_local_folder(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="'nobody/nothing' cannot be loaded .* give a local folder: .* data.name"
    ) as caught:
        hub("nobody/nothing")
    assert "\n" not in str(caught.value)
    part([0, 1]).save_to_disk(tmp_path / "pets")
    with pytest.raises(DataError, match="Did you mean 'pets'"):
        hub(str(tmp_path / "pest"))
