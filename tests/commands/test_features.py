"""The command features, and frozen runs that share what it has computed."""

import subprocess
import time
from pathlib import Path

import command
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from finetune.data.cache.file_digests import RACY_NS

SMALL = ["model=timm", "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "trainer.threads=1"]


def finetune(folder: Path, *arguments: str, cached: bool = True) -> "subprocess.CompletedProcess[str]":
    return command.finetune(*arguments, *([f"cache.dir={folder / 'kept'}"] if cached else []), folder=folder)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(30):
        path = tmp_path / "photos" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (8 * number, 255 * (number % 2), 90)).save(path)
    return tmp_path / "photos"


def test_features_are_computed_shown_and_cleared(tmp_path: Path, photos: Path) -> None:
    data = ["data=folder", f"data.root={photos}"]
    first = finetune(tmp_path, "features", *data, *SMALL, "features.views=2")
    assert first.returncode == 0 and "Computed 50" in first.stdout, first.stdout + first.stderr
    again = finetune(tmp_path, "features", *data, *SMALL, "features.views=2", "splits=[test]")
    assert "Computed 0" in again.stdout
    shown = finetune(tmp_path, "features", "action=show").stdout
    assert shown.count("│ features │") == 2 and "30" in shown
    assert "Cleared" in finetune(tmp_path, "features", "action=clear").stdout
    assert "│ features │" not in finetune(tmp_path, "features", "action=show").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["action=shwo"], "action=shwo is not one of compute, show, clear. Did you mean 'show'?"),
        (["action=clear", "spaces=[abc]"], "has an id that begins with 'abc'"),
        (["action=show", "cache.max_size=big"], "cache.max_size=big is not a size"),
        (["action=show", "cache.enabled=false"], "set cache.enabled=true"),
        (["features.dtype=float8", *SMALL], "features.dtype=float8 is not one of float32, float16"),
        (["features.views=3", "augment=none", *SMALL], "features.views=3 would take the same image as often"),
        (["tta_views=2", "augment=none", *SMALL], "tta_views=2 would take the same image as often"),
        (["splits=[tst]", *SMALL], "Did you mean 'test'?"),
        (["features.views=0"], "features.views=0 must be a whole number of 1 or more"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    found = finetune(tmp_path, "features", *arguments)
    assert found.returncode == 2 and message in found.stderr, found.stderr
    assert found.stderr.count("\n") == 1


def test_a_second_frozen_run_touches_no_image(tmp_path: Path, photos: Path) -> None:
    data = ["data=folder", f"data.root={photos}", *SMALL, "strategy=frozen", "strategy.epochs=2", "logger=none",
            "report=false", "explain.images=0"]  # fmt: skip
    counts = []
    time.sleep(RACY_NS / 1e9 + 0.1)  # a file that has just been written could change again within the same moment
    # weights are seeded by the run, so both have the same seed
    for options in ([], ["strategy.lr=1e-3", "head.dropout=0.1", "optimizer=sgd"]):
        found = command.finetune(*data, *options, f"cache.dir={tmp_path / 'kept'}", folder=tmp_path, watched=".png")
        assert found.returncode == 0, found.stderr
        counts.append(int(found.stdout.rpartition("opened: ")[2]))
    assert counts == [30, 0]
    tables = [pd.read_parquet(path) for path in (tmp_path / "runs").rglob("test.parquet")]
    assert len(tables) == 2 and tables[0]["id"].tolist() == tables[1]["id"].tolist()


@pytest.mark.parametrize("strategy", ["frozen", "full"])
def test_final_scores_are_of_all_views_and_can_be_had_again(tmp_path: Path, photos: Path, strategy: str) -> None:
    data = ["data=folder", f"data.root={photos}", *SMALL, f"strategy={strategy}", "strategy.epochs=1", "logger=none"]
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        noise = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    scores = {}
    for views in (1, 3):
        run = finetune(tmp_path, *data, f"tta_views={views}", "hydra.run.dir=runs/a/" + str(views))
        assert run.returncode == 0, run.stderr
        scores[views] = probabilities(tmp_path / "runs" / "a" / str(views) / "predictions" / "test.parquet")
    assert np.abs(scores[1] - scores[3]).max() > 1e-5
    again = finetune(tmp_path, "evaluate", "run=runs/a/3", cached=False)
    assert again.returncode == 0, again.stderr
    (found,) = (tmp_path / "runs" / "a" / "3" / "evaluations").glob("*/predictions/test.parquet")
    np.testing.assert_allclose(probabilities(found), scores[3], atol=1e-5)


def probabilities(path: Path) -> np.ndarray:
    frame = pd.read_parquet(path)
    return frame[[name for name in frame if name.startswith("probability/")]].to_numpy()
