"""Value range: images of more than 8 bits are read alike, whatever each of them holds, and by every door."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import finetune
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from sklearn.datasets import load_digits

from finetune.config.settings.checked import typed
from finetune.config.settings.data_groups import DataSettings
from finetune.data.augmentation.settings import NOT_AUGMENTED
from finetune.data.cache.file_digests import KnownFiles
from finetune.data.datamodule import ImageData
from finetune.data.sources import folder, sequences
from finetune.data.splits import make_splits
from finetune.data.table import ImageTable, value_range_of, with_value_range
from finetune.data.transforms import InputSpec
from finetune.data.value_range import ValueSpan, find_value_range
from finetune.data.verification import verify_images
from finetune.errors import ConfigError
from finetune.evaluation.image_files import ImageFiles

SPEC = InputSpec(1, 8, 8, (0.0,), (1.0,), "bilinear", 1.0)
GREY = load_digits().images / 16  # 0 to 1


def write(root: Path, make: Callable[[np.ndarray], np.ndarray], ending: str = "png", number: int = 8) -> Path:
    """Write digits as two classes of files whose values are what `make` makes of 0 to 1."""
    for place in range(2 * number):
        file = root / "ab"[place % 2] / f"{place}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make(GREY[place])).save(file)
    return root


def checked(root: Path, **options: Any) -> ImageTable:
    return verify_images(folder(str(root)), "error", **options)


def levels(table: ImageTable) -> np.ndarray:
    """Return the grey values of all images."""
    return np.stack([np.asarray(table.store.read(path, 1)) for path in table.frame["path"]])


@pytest.mark.parametrize("bits", [8, 9, 10, 11, 12, 14, 16])
def test_whole_numbers_of_any_bits_look_as_they_do_in_eight(tmp_path: Path, bits: int) -> None:
    table = checked(write(tmp_path, lambda grey: np.rint(grey * (2**bits - 1)).astype(np.uint16)))
    assert value_range_of(table.store) == (0, 2**bits - 1)
    plain = checked(write(tmp_path / "plain", lambda grey: np.rint(grey * 255).astype(np.uint8)))
    assert np.abs(levels(table).astype(int) - levels(plain)).max() <= 1


def nodata(grey: np.ndarray, value: float) -> np.ndarray:
    values = (grey * 900).astype(np.float32)
    values[:2] = value
    return values


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda grey: grey.astype(np.float32), (0, 1)),
        (lambda grey: (grey * 1.001 - 0.0005).astype(np.float32), (0, 1)),  # resampled, beyond its scale
        (lambda grey: (grey * 255).astype(np.float32), (0, 255)),
        (lambda grey: (grey * 0.02).astype(np.float32), (0, 0.02)),
        (lambda grey: (grey * 3000 - 1000).astype(np.float32), (-1000, 2000)),
        (lambda grey: (grey * 3000 - 1000).astype(np.int32), (-1000, 2000)),
        (lambda grey: nodata(grey, -9999), (0, 900)),
        (lambda grey: nodata(grey, -3.4028235e38), (0, 900)),
        (lambda grey: nodata(grey, np.nan), (0, 900)),
        (lambda grey: nodata(grey, np.inf), (0, 900)),
    ],
)
def test_the_range_is_that_of_the_data_set(
    tmp_path: Path, make: Callable[[np.ndarray], np.ndarray], expected: tuple[float, float]
) -> None:
    table = checked(write(tmp_path, make, "tif"))
    assert value_range_of(table.store) == pytest.approx(expected, abs=1e-6)
    assert len(np.unique(levels(table))) > 8


def test_what_a_file_itself_calls_no_data_is_none(tmp_path: Path) -> None:
    write(tmp_path, lambda grey: (grey * 900).astype(np.float32), "tif")
    values = (GREY[0] * 900).astype(np.float32)
    values[0] = -77777
    tags = ImageFileDirectory_v2()
    tags[42113] = "-77777"
    Image.fromarray(values).save(tmp_path / "a" / "marked.tif", tiffinfo=tags)
    table = checked(tmp_path)
    assert value_range_of(table.store) == (0, 900)
    assert (np.asarray(table.store.read(str(tmp_path / "a" / "marked.tif"), 1))[0] == 0).all()


def test_a_few_hot_values_do_not_make_the_others_black() -> None:
    span = ValueSpan(0.0, 1e6, 0.0, 900.0, whole=False)
    assert find_value_range([span, ValueSpan(0.0, 800.0, 0.0, 790.0, whole=False)]) == (0, 900)


def test_images_of_eight_bits_have_no_range_and_say_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        table = checked(write(tmp_path, lambda grey: np.rint(grey * 255).astype(np.uint8)))
    assert value_range_of(table.store) is None and not caplog.text
    assert "value_range" not in SPEC.description()  # so that what caches hold stays


def test_a_range_is_said_once_and_can_be_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, lambda grey: np.rint(grey * 4095).astype(np.uint16))
    with caplog.at_level("INFO"):
        checked(tmp_path)
        table = checked(tmp_path, value_range=(0.0, 65535.0))
    first, second = caplog.messages
    assert "16 of 16 images" in first and "4095 as white" in first and "data.bits=" in first
    assert "as set" in second and levels(table).max() <= 16


def test_the_range_is_known_of_files_that_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.data.cache.file_digests.RACY_NS", -(10**10))
    write(tmp_path / "photos", lambda grey: np.rint(grey * 4095).astype(np.uint16))
    known = KnownFiles(tmp_path / "files.sqlite")
    before = value_range_of(checked(tmp_path / "photos", known=known).store)
    monkeypatch.setattr("finetune.data.verification._check", None)
    assert value_range_of(checked(tmp_path / "photos", known=known).store) == before == (0, 4095)


def test_frames_of_sequences_have_one_range(tmp_path: Path) -> None:
    for clip in ("a/1", "a/2", "b/1", "b/2"):
        (tmp_path / clip).mkdir(parents=True)
        for number in range(2):
            Image.fromarray((GREY[number] * 4095).astype(np.uint16)).save(tmp_path / clip / f"{number}.png")
    table = verify_images(sequences(str(tmp_path), frames=2), "error")
    assert value_range_of(table.store) == (0, 4095)


def test_a_run_goes_on_with_the_range_that_it_began_with(tmp_path: Path) -> None:
    write(tmp_path / "photos", lambda grey: np.rint(grey * 4095).astype(np.uint16))
    table = make_splits(checked(tmp_path / "photos", value_range=(0.0, 2047.0)), val=0.2, test=0.2, seed=0)
    table.save(tmp_path / "table.parquet")
    again = folder(str(tmp_path / "photos")).with_splits_of(tmp_path / "table.parquet")
    assert value_range_of(again.store) == (0, 2047)


def test_the_input_spec_decides_how_images_are_read_and_what_caches_hold(tmp_path: Path) -> None:
    write(tmp_path, lambda grey: np.rint(grey * 4095).astype(np.uint16))
    table = make_splits(checked(tmp_path), val=0.2, test=0.2, seed=0)
    stored = json.loads(json.dumps({**vars(SPEC), "value_range": (0, 4095)}))
    spec = InputSpec.stored(stored)
    unranged = with_value_range(table, None)
    batches = [next(iter(ImageData(each, spec, NOT_AUGMENTED).val_dataloader())) for each in (table, unranged)]
    assert batches[0]["image"].equal(batches[1]["image"]) and batches[0]["image"].max() > 0.9
    files = ImageFiles(table.frame["path"].iloc[table.rows("val")].tolist(), spec)
    assert files[0][1] is not None and files[0][1][0].equal(batches[0]["image"][0])
    descriptions = [ImageData(table, each, NOT_AUGMENTED).input_description for each in (SPEC, spec)]
    assert descriptions[0] != descriptions[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bits": 12, "value_range": [0, 1]}, "exclude each other"),
        ({"value_range": [5, 5]}, r"value_range=\[5,5\] must be the lowest"),
        ({"value_range": [1, 2, 3]}, "must be the lowest"),
        ({"value_range": [0, float("nan")]}, "must be the lowest"),
        ({"bits": 7}, "data.bits=7 must be"),
    ],
)
def test_a_range_that_is_none_is_refused(given: dict[str, Any], message: str) -> None:
    content: dict[str, Any] = {
        "source": {"_target_": "a.b"}, "splits": {"val": 0.1, "test": 0.1, "seed": 0, "group": None, "fold": None},
        "batch_size": 1, "eval_batch_size": 1, "workers": 0, "unreadable": "error", "balance_groups": [],
        "image_size": None, "crop_mode": None, "horizontal_flip": 0.5, "smallest_crop": 0.3, "exact_pixels": False,
        "pixel_cache": False, "device_pixels": False, "bits": None, "value_range": None, "max_megapixels": 120.0,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        typed(DataSettings, content | given)


def test_a_run_is_scored_and_predicts_by_the_range_that_it_found_also_on_one_class(tmp_path: Path) -> None:
    write(tmp_path / "photos", lambda grey: np.rint(grey * 1023).astype(np.uint16), number=20)
    done = finetune(
        "model=timm", "model.name=test_resnet", "model.weights=none", "trainer=cpu", "data.image_size=32",
        "logger=none", "report=false", "strategy=frozen", "data=folder", "data.root=photos", "name=run",
        "data.workers=0", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs" / "run").iterdir()
    assert json.loads((run / "model" / "model.json").read_text())["input"]["value_range"] == [0, 1023]
    scored = finetune("evaluate", f"run={run}", "report=false", "device=cpu", "workers=0", folder=tmp_path)
    assert scored.returncode == 0, scored.stderr
    before = json.loads((run / "metrics.json").read_text())["test"]["loss"]["value"]
    (after,) = run.glob("evaluations/*/metrics.json")
    assert json.loads(after.read_text())["test"]["loss"]["value"] == pytest.approx(before, abs=1e-4)
    said = finetune("predict", f"run={run}", "input=photos/a", "output=a.csv", "device=cpu", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert len(rows) == 20
    shutil.copytree(tmp_path / "photos" / "a", tmp_path / "one" / "a")
    words = ("evaluate", f"run={run}", "data.root=one", "report=false", "device=cpu", "workers=0")
    one_class = finetune(*words, folder=tmp_path)
    assert one_class.returncode == 0, one_class.stderr
