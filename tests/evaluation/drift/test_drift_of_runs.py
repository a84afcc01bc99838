"""A run keeps what new images are compared with, evaluations measure drift against it, and all of it can be listed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import finetune
from photos import photo
from PIL import Image, ImageFilter

from finetune.data.transforms import eval_transform
from finetune.evaluation.drift.reference import load_reference, to_half_precision
from finetune.evaluation.images import run_table
from finetune.models.bundle import load_bundle
from finetune.runs.run import Run

SETTINGS = (
    "data=folder", "data.image_size=64", "model=timm", "model.name=test_efficientnet", "model.weights=none",
    "strategy=frozen", "strategy.epochs=2", "logger=none", "bootstrap=20", "hydra.run.dir=runs/one", "data.workers=0",
)  # fmt: skip


def write(folder: Path, first: int, count: int, *, blur: float = 0.0) -> Path:
    for seed in range(first, first + count):
        image = photo((96, 96), seed)
        image = image.filter(ImageFilter.GaussianBlur(blur)) if blur else image
        path = folder / "ab"[seed % 2] / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, and what came of evaluating it three times."""
    place = tmp_path_factory.mktemp("monitored")
    write(place / "photos", 0, 240)
    write(place / "blurred", 1000, 60, blur=4)
    write(place / "unchanged", 2000, 60)
    keep = f"cache.dir={place / 'kept'}"
    assert finetune(*SETTINGS, "data.root=photos", "data.splits.val=0.4", keep, folder=place).returncode == 0
    for change in ([], ["split=val"], ["data.root=unchanged"], ["data.root=blurred"]):
        found = finetune("evaluate", "run=last", "bootstrap=20", *change, folder=place, COLUMNS="80")
        assert found.returncode == 0, found.stderr
        (place / f"said{'_'.join(change)}.txt").write_text(found.stdout)
    return place


def evaluations(place: Path) -> list[dict[str, Any]]:
    files = (place / "runs" / "one" / "evaluations").glob("*/evaluation.json")
    return sorted((json.loads(file.read_text()) for file in files), key=lambda facts: facts["created"])


@pytest.mark.slow
def test_reference_is_the_features_of_the_shipped_models_validation_images(place: Path) -> None:
    run = Run(place / "runs" / "one")
    reference, bundle, table = load_reference(run), load_bundle(run.model_dir), run_table(run)
    assert reference is not None and reference.rows.tolist() == table.rows("val").tolist()
    transform = eval_transform(bundle.network.spec)
    paths = [place / path for path in table.frame["path"].iloc[reference.rows]]
    with torch.no_grad():
        images = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
        expected = bundle.network.backbone(images).numpy()
    np.testing.assert_allclose(reference.features, to_half_precision(expected), atol=2e-2 * np.abs(expected).max())


@pytest.mark.slow
def test_evaluations_store_the_drift_of_their_images(place: Path) -> None:
    own, val, unchanged, blurred = (facts["drift"] for facts in evaluations(place))
    assert val is None  # the images that the others are compared with
    assert own["drifted"] == unchanged["drifted"] == [] and own["against"] == "val"
    assert "inputs" in blurred["drifted"] and blurred["inputs"]["p"] == 0.001
    assert blurred["inputs"]["distance"] > 5 * unchanged["inputs"]["distance"]
    assert blurred["n"] == {"reference": 96, "new": 60}


@pytest.mark.slow
def test_drift_and_the_run_over_time_are_said(place: Path) -> None:
    blurred = (place / "saiddata.root=blurred.txt").read_text()
    assert "DRIFT beyond chance: images (features)" in blurred
    rows = [
        line
        for line in blurred[blurred.index("over time") :].splitlines()
        if " its own " in line or " blurred " in line
    ]
    assert len(rows) == 4 and "* 0." in rows[-1] and "…" not in blurred
    assert max(map(len, blurred[blurred.index("drift of") :].splitlines()[:20])) <= 80
    assert "No drift beyond chance." in (place / "said.txt").read_text()
    assert "drift" not in (place / "saidsplit=val.txt").read_text()


@pytest.mark.slow
def test_evaluations_are_listed_and_the_run_notes_its_time(place: Path) -> None:
    found = finetune("runs", "run=last", "filter=drifted~inputs", "output=o.json", folder=place)
    assert found.returncode == 0 and "1 of 5 evaluations" in found.stdout, found.stderr
    (row,) = json.loads((place / "o.json").read_text())
    assert row["images"] == "blurred" and row["n"] == 60 and row["accuracy_low"] <= row["accuracy"]
    assert 0 < Run(place / "runs" / "one").record["seconds"] < 600
    refused = finetune("runs", "run=lst", folder=place)
    assert refused.returncode == 2 and "There is no run 'lst'" in refused.stderr


@pytest.mark.slow
def test_unlabelled_images_are_watched_as_they_are_predicted(place: Path) -> None:
    for folder, drifted in (("blurred", True), ("unchanged", False)):
        found = finetune("predict", "run=last", f"input={folder}", "drift=true", f"output={folder}.csv", folder=place)
        assert found.returncode == 0 and ("DRIFT beyond chance" in found.stdout) == drifted, found.stderr
        predicted = json.loads((place / f"{folder}.drift.json").read_text())
        evaluated = evaluations(place)[3 if drifted else 2]["drift"]
        assert predicted["inputs"]["distance"] == pytest.approx(evaluated["inputs"]["distance"], abs=1e-3)
        assert predicted["confidence"]["distance"] == pytest.approx(evaluated["confidence"]["distance"], abs=1e-6)
