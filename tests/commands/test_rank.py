"""The command rank: backbones whose weights are there are compared, others are named, and a second call is quick."""

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from command import finetune
from configured import settings_for
from PIL import Image, ImageDraw

from finetune.config.settings.search_groups import RankSettings
from finetune.errors import ConfigError
from finetune.search.ranking.candidates import check_ranking_options

COUNT = 48


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images of two classes that differ in shape."""
    for number in range(COUNT):
        image = Image.new("RGB", (40, 40), (7 * number % 200, 90, 40))
        corner = 4 + number % 9
        shape = ImageDraw.Draw(image).ellipse if number % 2 else ImageDraw.Draw(image).rectangle
        shape((corner, corner, corner + 20, corner + 20), fill=(250, 240, 200))
        path = tmp_path / "photos" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return tmp_path / "photos"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder of weights of two models, and of a file that is none."""
    torch.manual_seed(0)
    (tmp_path / "weights").mkdir()
    for name in ("test_resnet", "test_vit"):
        state = {key: value.contiguous() for key, value in timm.create_model(name).state_dict().items()}
        safetensors.torch.save_file(state, tmp_path / "weights" / f"{name}.safetensors")
    (tmp_path / "weights" / "test_convnext.safetensors").write_text("nothing")
    return tmp_path / "weights"


def rank(folder: Path, photos: Path, *arguments: str) -> Any:
    return finetune(
        "rank", "data=folder", f"data.root={photos}", "data.image_size=32", "rank.repeats=1", "rank.batch_size=2",
        "rank.folds=3", f"cache.dir={folder / 'kept'}", *arguments, folder=folder,
    )  # fmt: skip


@pytest.mark.slow
def test_backbones_are_compared_and_the_others_named(tmp_path: Path, photos: Path, weights: Path) -> None:
    models = "rank.models=[test_resnet,test_vit,test_convnext,test_efficientnet,resnet50]"
    options = [models, "rank.weights=local", f"rank.weights_dir={weights}"]
    first = rank(tmp_path, photos, *options)
    assert first.returncode == 0, first.stderr
    found = json.loads((tmp_path / "rank" / "rank.json").read_text())
    assert sorted(row["name"] for row in found["backbones"]) == ["test_resnet", "test_vit"]
    reasons = {entry["name"]: entry["reason"] for entry in found["skipped"]}
    assert "cannot be read as weights" in reasons["test_convnext"]
    assert "not on this machine" in reasons["test_efficientnet"] and "resnet50" in reasons
    train = round(COUNT * 0.7)  # neither validation nor test images are passed through
    assert [row["computed"] for row in found["backbones"]] == [found["images"]] * 2
    assert abs(found["images"] - train) <= 2
    accuracies = [row["accuracy"] for row in found["backbones"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert len(list(csv.DictReader((tmp_path / "rank" / "rank.csv").open()))) == 2
    assert (tmp_path / "rank" / "rank.svg").read_text().startswith("<svg")
    assert "Skipped test_efficientnet, resnet50: its weights" in first.stdout
    again = rank(tmp_path, photos, *options)
    repeated = json.loads((tmp_path / "rank" / "rank.json").read_text())["backbones"]
    assert [row["computed"] for row in repeated] == [0, 0], again.stderr
    same = ("name", "accuracy", "accuracy_error", "nll", "logme", "parameters", "peak_memory")
    assert [[row[key] for key in same] for row in repeated] == [
        [row[key] for key in same] for row in found["backbones"]
    ]


@pytest.mark.slow
def test_printed_command_trains_on_the_features_that_are_there(tmp_path: Path, photos: Path, weights: Path) -> None:
    ranked = rank(tmp_path, photos, "rank.weights=local", f"rank.weights_dir={weights}", "rank.models=test_resnet")
    (command,) = [line for line in ranked.stdout.splitlines() if line.startswith("Train the best: ")]
    words = shlex.split(command.removeprefix("Train the best: finetune "))
    assert f"model.weights={weights}/test_resnet.safetensors" in words
    run = finetune(*words, "strategy=frozen", "strategy.epochs=1", "logger=none", "bootstrap=0", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    (metrics,) = (tmp_path / "runs").rglob("metrics.json")
    parameters = sum(value.numel() for value in timm.create_model("test_resnet", num_classes=2).parameters())
    assert json.loads(metrics.read_text())["model"]["parameters"] == parameters
    (log,) = (tmp_path / "runs").rglob("train.log")
    computed = [line for line in log.read_text().splitlines() if "Computed the features of" in line]
    # those of training are there; validation and test are computed now
    assert all(f"of {ranked_images(tmp_path)} images" not in line for line in computed)


def ranked_images(folder: Path) -> int:
    return int(json.loads((folder / "rank" / "rank.json").read_text())["images"])


@pytest.mark.slow
def test_budget_leaves_out_what_exceeds_it(tmp_path: Path, photos: Path) -> None:
    models = "rank.models=[test_resnet,test_vit,test_efficientnet]"
    found = rank(tmp_path, photos, models, "rank.weights=none", "rank.max_params=3e5", "rank.max_latency=1000")
    assert found.returncode == 0, found.stderr
    size = sum(value.numel() for value in timm.create_model("test_resnet", num_classes=0).parameters())
    assert f"it has {size:,} parameters, more than rank.max_params=300,000" in found.stdout
    none = rank(tmp_path, photos, models, "rank.weights=none", "rank.max_latency=1e-6")
    assert none.returncode == 2 and "more than rank.max_latency=1e-06" in none.stderr
    assert "None of 3 backbones could be scored" in none.stderr and none.stderr.count("\nfinetune:") <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "locl"}, "rank.weights=locl is not one of download, local, none. Did you mean 'local'?"),
        ({"models": []}, "rank.models=[] is no list of names"),
        ({"models": 3}, "rank.models=3 is no list of names"),
        ({"max_params": -1.0}, "rank.max_params=-1.0 is not a limit"),
        ({"max_latency": float("nan")}, "rank.max_latency=nan is not a limit"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_ranking_options(settings_for(RankSettings, **changes))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rank.folds=1"], "rank.folds=1 must be a whole number of 2 or more"),
        (["rank.weights=local", "rank.models=test_vit"], "None of 1 backbones could be scored (test_vit: its weights"),
        (["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "rank.weights=none"], "Set trainer.devices=1"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, photos: Path, arguments: list[str], message: str) -> None:
    found = rank(tmp_path, photos, *arguments)
    assert found.returncode == 2 and message in found.stderr, found.stderr
    assert found.stderr.count("finetune: ") == 1
    assert not (tmp_path / "rank").exists()
