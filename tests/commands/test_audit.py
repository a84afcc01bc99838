"""The command audit: planted faults are found, its table goes back into training, and a run says what was found."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from command import finetune
from photos import photo

from finetune.runs.run import Run

pytestmark = pytest.mark.slow
LIGHT = ("model=timm", "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "trainer=cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Splits of photos of two classes: one test photo is in train too, one in train twice with other labels."""
    root = tmp_path / "photos"
    for split, first, count in (("train", 0, 14), ("val", 40, 4), ("test", 60, 4)):
        for number in range(first, first + 2 * count):
            place = root / split / ("warm" if number % 2 else "cold") / f"{number}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            image = photo((90, 70), number)
            tint = (220, 90, 40) if number % 2 else (40, 90, 220)
            image.paste(tint, (0, 0, 45, 35))
            image.save(place, quality=92)
    shutil.copy(root / "train" / "warm" / "1.jpg", root / "test" / "warm" / "copied.jpg")
    shutil.copy(root / "train" / "cold" / "2.jpg", root / "train" / "warm" / "wrong.jpg")
    (root / "train" / "cold" / "broken.jpg").write_bytes(b"nothing")
    return root


def test_planted_faults_are_found_and_a_run_on_the_corrected_table_is_clean(tmp_path: Path, photos: Path) -> None:
    said = finetune(
        "audit", "data=folder", f"data.root={photos}", *LIGHT, f"cache.dir={tmp_path}/kept", folder=tmp_path
    )
    assert said.returncode == 0, said.stderr
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert {kind: found["counts"][kind] for kind in ("leakage", "unreadable", "label_conflict")} == {
        "leakage": 1, "unreadable": 1, "label_conflict": 2,
    }  # fmt: skip
    assert found["unreadable"][0]["path"].endswith("broken.jpg")
    assert "not an image" in found["unreadable"][0]["reason"]
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "copied.jpg" in page
    assert not re.search(r"(src|href)=.http|@import|url\(http", page)

    run = ("finetune", "data=folder", f"data.root={photos}", "data.unreadable=skip", "strategy=frozen")
    again = finetune(*run[1:], *LIGHT, "logger=none", "bootstrap=0", f"cache.dir={tmp_path}/kept", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "1 val and test images leak from earlier splits" in again.stdout
    assert Run.all(tmp_path / "runs")[0].record["audit"]["counts"]["leakage"] == 1

    table = tmp_path / "audit" / "audit.csv"
    rows = list(csv.DictReader(table.open()))
    assert {row["path"].rsplit("/")[-1] for row in rows if "leakage" in row["issues"]} == {"copied.jpg"}
    kept = [row for row in rows if row["path"].rsplit("/")[-1] not in ("copied.jpg", "wrong.jpg")]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    corrected = finetune("audit", "data=csv", f"data.path={table}", *LIGHT, "audit.output=second", folder=tmp_path)
    assert corrected.returncode == 0, corrected.stderr
    clean = json.loads((tmp_path / "second" / "audit.json").read_text())
    assert (clean["counts"]["leakage"], clean["counts"]["duplicate"], clean["images"]) == (0, 0, len(kept))


def test_duplicates_stay_together_in_the_splits_that_a_run_makes(tmp_path: Path, photos: Path) -> None:
    flat = tmp_path / "flat"
    for file in photos.glob("train/*/[0-9]*.jpg"):
        for copy in range(3):
            place = flat / file.parent.name / f"{file.stem}-{copy}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    said = finetune("audit", "data=folder", f"data.root={flat}", *LIGHT, "audit.labels=false", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["counts"]["leakage"] > 5
    assert "data.splits.group=duplicate_group" in said.stdout
    together = ["data=csv", "data.path=audit/audit.csv", "data.group_columns=[duplicate_group]",
                "data.splits.group=duplicate_group"]  # fmt: skip
    again = finetune("audit", *together, *LIGHT, "audit.labels=false", "audit.output=second", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "second" / "audit.json").read_text())["counts"]["leakage"] == 0


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("audit.hash_distance=99", "a number of bits, at least 0 and at most 64"),
        ("audit.similarity=2", "at most 1"),
        ("audit.folds=1", "2 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, word: str, expected: str) -> None:
    said = finetune("audit", word, folder=tmp_path)
    assert (said.returncode, said.stdout) == (2, "")
    assert expected in said.stderr
    assert not (tmp_path / "audit").exists()
