"""A planted spurious group: balancing over group and class raises the accuracy of the group that is served worst."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from configured import settings_for, train_settings
from PIL import Image
from torch import nn
from torch.nn import functional

from finetune.config.settings.roots import TrainSettings
from finetune.config.settings.run_groups import GroupSettings
from finetune.data.table import ImageTable
from finetune.errors import ConfigError
from finetune.evaluation.fairness.group_metrics import groups_document
from finetune.evaluation.predictions import Predictions
from finetune.features.extract import FeatureSource
from finetune.features.feature_datamodule import FeatureData
from finetune.models.network import Network
from finetune.runs.run import Run
from finetune.runtime.device import DevicePass
from finetune.training.build import build_recipe, load_images, load_network, load_table, open_cache
from finetune.training.callbacks.checkpoints import Checkpoints, network_state, read_checkpoint
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import fit, predict_split
from finetune.training.head_trainer import HeadLoop
from finetune.training.losses import BinaryCrossEntropy, CrossEntropy, Focal, check_image_weights
from finetune.training.resume import ResumePoint

HEADS = {"trained": ("head=linear",), "solved": ("head=logistic", "head.l2=0.03")}
BALANCED = "data.balance_groups=[background]"


def draw_image(path: Path, label: int, background: str, generator: np.random.Generator) -> None:
    """Draw a faint bar, upright or lying, on a green or a blue background."""
    pixels = generator.normal(90, 14, (32, 32, 3))
    pixels[:, :, 1 if background == "green" else 2] += 70
    place = int(generator.integers(8, 22))
    bar = (slice(None), slice(place, place + 4)) if label else (slice(place, place + 4), slice(None))
    pixels[bar] += 25
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of bars whose background agrees with the class in 95 % of training images, and in half of the others."""
    folder, generator, rows = tmp_path_factory.mktemp("bars"), np.random.default_rng(0), []
    for split, number, agreeing in (("train", 400, 0.95), ("val", 80, 0.5), ("test", 240, 0.5)):
        for k in range(number):
            label, agrees = k % 2, (k // 2) % 20 < 20 * agreeing
            background = "green" if (label == 0) == agrees else "blue"
            draw_image(folder / f"{split}{k}.png", label, background, generator)
            row = {"path": f"{split}{k}.png", "label": ["lying", "upright"][label], "split": split}
            rows.append(row | {"background": background})
    pd.DataFrame(rows).to_csv(folder / "bars.csv", index=False)
    return folder


def config_of(photos: Path, *overrides: str) -> TrainSettings:
    usual = (
        "data=csv", f"data.path={photos}/bars.csv", "data.group_columns=[background]", "strategy=frozen", "model=timm",
        "model.name=test_resnet", "model.weights=none", "augment=none", "trainer=cpu", "strategy.epochs=40",
        "optimizer.lr=0.01", "logger=none", "head.standardize=true",
        f"cache.dir={photos}/cache", "data.image_size=32",
    )  # fmt: skip
    return train_settings(given=(*usual, *overrides))


def parts_of(settings: TrainSettings) -> tuple[ImageTable, Any, Any]:
    torch.manual_seed(0)
    table, cache = load_table(settings.data), open_cache(settings.cache)
    network = load_network(settings, table)
    images = load_images(settings, table, network, cache)
    return table, network, (settings.strategy, build_recipe(settings, table, cache), images)


def train(folder: Path, settings: TrainSettings) -> tuple[ImageTable, Network, Any]:
    """Train as configured, and return the table, the network with its best weights, and the other parts."""
    table, network, (strategy, recipe, images) = parts_of(settings)
    run = Run(folder)
    run.path.mkdir(parents=True)
    checkpoints = Checkpoints(run, "val/accuracy", "max")
    metrics = MetricsCallback(table.task, 2, None, 1)
    fit(network, strategy, images, recipe, place=ResumePoint(), metrics=metrics, checkpoints=checkpoints,
        callbacks=list, loggers=[])  # fmt: skip
    network.load_state_dict(network_state(read_checkpoint(run.best_checkpoint), averaged=True))
    return table, network, (strategy, recipe, images)


def worst_accuracy(folder: Path, settings: TrainSettings) -> float:
    """Train as configured, and return the accuracy of the worst class and background on test images."""
    table, network, (strategy, recipe, images) = train(folder, settings)
    outputs = predict_split(network, images, "test", recipe, DevicePass(torch.device("cpu")), cached=True)
    found = Predictions.from_logits(table, outputs.rows, outputs.logits)
    found.groups["truth"] = found.label_names
    groups = settings_for(GroupSettings, ("background",), 30, (("background", "truth"),))
    cells = groups_document({"test": found}, groups, resamples=0)["test"]["background x truth"]
    return float(cells["groups"][cells["weakest"]]["accuracy"]["value"])


@pytest.fixture(scope="module")
def before(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The worst accuracy without balance, by what finds the head."""
    folder = tmp_path_factory.mktemp("before")
    return {head: worst_accuracy(folder / head, config_of(photos, *HEADS[head])) for head in HEADS}


@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("policy", ["class_weights", "balanced_sampler"])
def test_balance_raises_the_worst_groups_accuracy(
    photos: Path, tmp_path: Path, before: dict[str, float], head: str, policy: str
) -> None:
    config = config_of(photos, *HEADS[head], f"imbalance={policy}", BALANCED)
    after = worst_accuracy(tmp_path / "run", config)
    assert after > before[head] + 0.1


def test_the_images_weights_are_those_of_their_class_and_group(photos: Path) -> None:
    config = config_of(photos, "imbalance=class_weights", BALANCED)
    table, _, (_, recipe, images) = parts_of(config)
    frame = table.frame.assign(weight=recipe.image_weights.numpy())
    sums = frame[frame["split"] == "train"].groupby(["label", "background"])["weight"].sum()
    assert sums.tolist() == pytest.approx([100] * 4, rel=1e-5)
    assert recipe.loss.class_weights is None and images.training_weights() is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.balance_groups=[colour]", "imbalance=class_weights"], "no group column. There are: background"),
        ([BALANCED], "says what is balanced, not how"),
        (
            [BALANCED, "imbalance=class_weights", "augment=strong", "augment.mixup=0.2"],
            "mixup and cutmix mix them",
        ),
        ([BALANCED, "imbalance=class_weights", "label_noise=mixup"], "mixup and cutmix mix them"),
    ],
)
def test_what_cannot_be_balanced_is_an_error(photos: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parts_of(config_of(photos, *overrides))


def test_a_loss_that_takes_no_weights_is_an_error() -> None:
    with pytest.raises(ConfigError, match="CrossEntropyLoss takes no weights of images"):
        check_image_weights(nn.CrossEntropyLoss())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_weighted_loss_is_the_mean_of_weight_times_torchs_own(smoothing: float) -> None:
    logits, weights = torch.randn(6, 3), torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0, 1.0])
    target, labels = torch.tensor([0, 1, 2, 2, 1, 0]), torch.rand(6, 3).round()
    own = functional.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(CrossEntropy(smoothing)(logits, target, weights), (own * weights).mean())
    own = functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(Focal(0.0)(logits, target, weights), (own * weights).mean())
    own = functional.binary_cross_entropy_with_logits(
        logits, labels * (1 - smoothing) + smoothing / 2, reduction="none"
    ).mean(1)
    torch.testing.assert_close(BinaryCrossEntropy(smoothing)(logits, labels, weights), (own * weights).mean())


@pytest.mark.parametrize("loss", [CrossEntropy(), Focal(), CrossEntropy(class_weights=[1.0, 2.0, 3.0])])
def test_the_mean_over_devices_is_the_loss_of_all_images(loss: nn.Module) -> None:
    logits, target, weights = torch.randn(8, 3), torch.arange(8) % 3, torch.rand(8) * 2
    halves = [loss(logits[part], target[part], weights[part]) for part in (slice(0, 8, 2), slice(1, 8, 2))]
    torch.testing.assert_close((halves[0] + halves[1]) / 2, loss(logits, target, weights))


@pytest.mark.parametrize("head", sorted(HEADS))
def test_a_head_fitted_without_the_trainer_uses_the_same_weights(photos: Path, tmp_path: Path, head: str) -> None:
    config = config_of(photos, *HEADS[head], "imbalance=class_weights", BALANCED)
    heads = []
    for balanced in (True, False):
        _, network, (strategy, recipe, images) = parts_of(config)
        recipe = recipe if balanced else replace(recipe, image_weights=None)
        data = FeatureData(images, batch_size=recipe.head_batch_size, seed=0, settings=recipe.features)
        source = FeatureSource(network, images, recipe.features, DevicePass(torch.device("cpu")))
        data.found = {split: source.features(images.table.rows(split), 1) for split in ("train", "val")}
        fitted = HeadLoop(network, data)
        fitted.fit(strategy, recipe, mode="max")
        heads.append(fitted.network.head.state_dict())
    trained = train(tmp_path / "run", config)[1].head.state_dict()
    for name, value in trained.items():
        torch.testing.assert_close(heads[0][name], value, rtol=1e-3, atol=1e-4)
    assert any(not torch.allclose(heads[1][name], value, rtol=1e-2) for name, value in trained.items())
