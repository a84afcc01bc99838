"""A whole run whose images are made on the device that trains scores like one without."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import finetune
from photos import encoded, photo

OPTIONS = (
    "model=timm", "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "trainer=cpu",
    "trainer.threads=1", "data=folder", "data.root=photos", "data.batch_size=8", "strategy=lp_ft", "strategy.epochs=3",
    "optimizer=sgd", "optimizer.lr=0.01", "strategy.head_lr=0.01", "head.standardize=true",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Light and dark photos, most of them JPEGs."""
    for number in range(40):
        label = number % 2
        image = photo((90 + number, 70), number).point(lambda value, label=label: value // 2 + 120 * label)
        file = tmp_path / "photos" / f"class{label}" / f"{number}{'.png' if number % 8 == 0 else '.jpg'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(image, "PNG" if number % 8 == 0 else "JPEG"))
    return tmp_path


def outcome(folder: Path, name: str, *arguments: str) -> tuple[dict[str, float], np.ndarray]:
    """Return the test scores of a run, and its probabilities (N, K)."""
    own = ("logger=none", "bootstrap=10", f"name={name}", f"cache.dir={folder / 'kept'}")
    found = finetune(*OPTIONS, *own, *arguments, folder=folder)
    assert found.returncode == 0, found.stdout + found.stderr
    (run,) = (folder / "runs" / name).iterdir()
    scores = json.loads((run / "metrics.json").read_text())["test"]
    probabilities = pd.read_parquet(run / "predictions" / "test.parquet").filter(like="probability/").to_numpy()
    return {score: value["value"] for score, value in scores.items()}, probabilities


def test_a_run_scores_like_one_whose_images_are_made_by_workers(folder: Path) -> None:
    scores, probabilities = outcome(folder, "usual")
    made, changed = outcome(folder, "device", "data.device_pixels=true", "data.workers=2")
    assert probabilities[:, 0].std() > 0.05
    assert np.abs(changed - probabilities).max() < 0.01
    assert made == pytest.approx(scores, abs=0.01)


def test_settings_that_need_pil_are_one_line(folder: Path) -> None:
    found = finetune(*OPTIONS, "data.device_pixels=true", "augment=strong", folder=folder)
    assert found.returncode == 2
    assert "augment.rand_augment=rand-m7-mstd0.5-inc1" in found.stderr and found.stderr.count("\n") == 1


def test_the_benchmark_makes_images_too(folder: Path) -> None:
    found = finetune("benchmark", *OPTIONS, "data.device_pixels=true", "batches=1", "repeats=1", folder=folder)
    assert found.returncode == 0, found.stderr
    assert "images are made on the CPU" in found.stderr
    assert json.loads((folder / "benchmark.json").read_text())["pipeline"] > 0
