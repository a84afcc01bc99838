"""Weights and offsets of classes are those of the papers, and a head that is solved obeys them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import assembled
import numpy as np
import pandas as pd
import pytest
import torch
from configured import settings_for
from PIL import Image
from tiny import tiny_table
from torch.nn import functional

from finetune.config.settings.training_groups import Augment
from finetune.data.cache.shards import Entries, Shard
from finetune.data.cache.store import Cache
from finetune.data.sampling import Draw
from finetune.errors import ConfigError
from finetune.features.cached_features import VALUES, CachedFeatures
from finetune.features.extract import FeatureSource
from finetune.features.feature_datamodule import FeatureData, FeatureRows
from finetune.models.heads.modules import standardize_layer
from finetune.models.network import Network
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.runtime.device import DevicePass
from finetune.training.callbacks.checkpoints import Checkpoints, network_state, read_checkpoint
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import fit
from finetune.training.head_trainer import HeadLoop
from finetune.training.imbalance import adjust_logits, effective_weights, log_priors, minority_augmentation
from finetune.training.losses import BinaryCrossEntropy, CrossEntropy, Focal, class_weights
from finetune.training.resume import ResumePoint

TARGETS = torch.tensor([0] * 90 + [1] * 9 + [2])


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_effective_numbers_are_those_of_the_paper(beta: float) -> None:
    found = effective_weights(TARGETS, "multiclass", 3, beta).double()
    numbers = torch.tensor([sum(beta**power for power in range(count)) for count in (90, 9, 1)], dtype=torch.float64)
    torch.testing.assert_close(found / found[0], numbers[0] / numbers, rtol=1e-5, atol=0)
    assert float(found[TARGETS].mean()) == pytest.approx(1, rel=1e-5)


def test_effective_numbers_near_1_are_numbers() -> None:
    labels = torch.nn.functional.one_hot(TARGETS, 3)
    for targets, task in ((TARGETS, "multiclass"), (labels, "multilabel")):
        expected = class_weights(targets, task, 3)  # type: ignore[arg-type]
        torch.testing.assert_close(effective_weights(targets, task, 3, 1 - 1e-9), expected, rtol=1e-4, atol=0)  # type: ignore[arg-type]
    absent = effective_weights(TARGETS, "multiclass", 4, 0.9)
    assert float(absent[3]) == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_adjusted_loss_adds_log_priors(smoothing: float) -> None:
    table = tiny_table(train=30, val=2, test=2)
    targets = torch.from_numpy(table.targets()[table.rows("train")])
    loss, logits = CrossEntropy(smoothing), torch.randn(6, 10)
    adjust_logits(loss, log_priors(targets, table), tau=1.5)
    shares = torch.bincount(targets, minlength=10).clamp(min=1).double()
    expected = logits + 1.5 * (shares / shares.sum()).log().float()
    target = torch.arange(6)
    torch.testing.assert_close(
        loss(logits, target), functional.cross_entropy(expected, target, label_smoothing=smoothing)
    )
    soft = torch.rand(6, 10).softmax(1)
    torch.testing.assert_close(loss(logits, soft), functional.cross_entropy(expected, soft, label_smoothing=smoothing))
    for other, message in ((Focal(), "the loss is Focal"), (BinaryCrossEntropy(), "the loss is BinaryCrossEntropy")):
        with pytest.raises(ConfigError, match=message):
            adjust_logits(other, torch.zeros(10), 1.0)


def test_repeats_get_more_than_the_runs_own_augmentation() -> None:
    light = settings_for(Augment, horizontal_flip=0.0, crop_scale=(0.8, 1.0))
    varied = minority_augmentation(light, channels=3, device_pixels=False)
    assert (varied.horizontal_flip, varied.crop_scale) == (0.0, (0.8, 1.0))
    assert varied.rand_augment is not None and varied.erase == 0.25
    assert minority_augmentation(light, channels=4, device_pixels=False).rand_augment is None
    assert minority_augmentation(light, channels=3, device_pixels=True).rand_augment is None
    with pytest.raises(ConfigError, match="augment=none augments nothing"):
        minority_augmentation(settings_for(Augment, enabled=False), channels=3, device_pixels=False)
    with pytest.raises(ConfigError, match="all images have both"):
        minority_augmentation(varied, channels=3, device_pixels=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of noisy images of two shades, of which the dark one is rare."""
    folder, generator = tmp_path_factory.mktemp("shades"), np.random.default_rng(0)
    rows = []
    for split, (dark, light) in {"train": (6, 42), "val": (8, 8), "test": (8, 8)}.items():
        for number in range(dark + light):
            name, label = f"{split}{number}.png", "dark" if number < dark else "light"
            pixels = generator.normal(110 if label == "dark" else 128, 50, (32, 32, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            rows.append({"path": name, "label": label, "split": split})
    pd.DataFrame(rows).to_csv(folder / "shades.csv", index=False)
    return folder


def parts_of(photos: Path, *words: str) -> tuple[Any, Network, Any, Any, Any]:
    """Return table, network, strategy, recipe and images of a frozen run."""
    usual = (
        "data=csv", f"data.path={photos}/shades.csv", "strategy=frozen", "model=timm", "model.name=test_resnet",
        "model.weights=none", "trainer=cpu", "strategy.epochs=3", "logger=none", "head.standardize=true",
        f"cache.dir={photos}/cache", "data.image_size=32",
    )  # fmt: skip
    return assembled.parts_of(*words, given=usual)


def fitted(photos: Path, *words: str) -> tuple[HeadLoop, Any]:
    """Return what fits a head without the trainer, after it has, and the recipe."""
    _, network, strategy, recipe, images = parts_of(photos, *words)
    data = FeatureData(images, batch_size=recipe.head_batch_size, seed=0, settings=recipe.features)
    source = FeatureSource(network, images, recipe.features, DevicePass(torch.device("cpu")))
    data.found = {split: source.features(images.table.rows(split), 1) for split in ("train", "val")}
    fitter = HeadLoop(network, data)
    fitter.fit(strategy, recipe, mode="max")
    return fitter, recipe


def trained(folder: Path, photos: Path, *words: str) -> tuple[Network, list[dict[str, Any]], Any]:
    """Train by the real trainer; return the network with its best weights, its history and the images."""
    _, network, strategy, recipe, images = parts_of(photos, *words)
    recipe, run = replace(recipe, regularizer=recipe.regularizer.towards(network)), Run(folder)
    run.path.mkdir(parents=True)
    metrics = MetricsCallback("multiclass", 2, RunHistory(run.history_file), 1)
    fit(network, strategy, images, recipe, place=ResumePoint(), metrics=metrics,
        checkpoints=Checkpoints(run, "val/accuracy", "max"), callbacks=list, loggers=[])  # fmt: skip
    network.load_state_dict(network_state(read_checkpoint(run.best_checkpoint), averaged=True))
    return network, [row for row in RunHistory(run.history_file).read() if "val/loss" in row], images


def test_a_solved_head_is_the_optimum_of_the_adjusted_loss(photos: Path) -> None:
    fitter, recipe = fitted(photos, "head=logistic", "head.l2=0.05", "imbalance=logit_adjust", "balance.tau=1.5")
    head, layer = fitter.network.head, standardize_layer(fitter.network.head)
    assert layer is not None and recipe.loss.offsets is not None
    features = layer(fitter.train_features[0])
    last = head[-1]
    loss = recipe.loss(functional.linear(features, last.weight, last.bias), fitter.train_targets)
    (loss + 0.5 * 0.05 * last.weight.square().sum()).backward()
    assert float(last.weight.grad.abs().max()) < 1e-3 and float(last.bias.grad.abs().max()) < 1e-3
    plain, _ = fitted(photos, "head=logistic", "head.l2=0.05")
    torch.testing.assert_close(plain.network.head[-1].weight, last.weight, rtol=1e-2, atol=1e-3)
    gap = (last.bias - plain.network.head[-1].bias).detach()
    assert float(gap[0] - gap[1]) == pytest.approx(1.5 * np.log(42 / 6), abs=1e-2)


def test_solvers_count_resampled_images_by_how_often_they_are_drawn(photos: Path) -> None:
    words = ("head=logistic", "head.l2=0.05", "loss.label_smoothing=0")
    weights = fitted(photos, *words, "imbalance=class_weights")[0].network.head.state_dict()
    for policy in ("oversample", "undersample", "balanced_sampler"):
        found = fitted(photos, *words, f"imbalance={policy}")[0].network.head.state_dict()
        for name, value in weights.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "words",
    [
        ("imbalance=oversample", "label_noise=mixup", "head.dropout=0.2"),
        ("imbalance=logit_adjust", "regularize.l1=0.02", "regularize.l2_sp=0.1"),
    ],
)
def test_a_head_fitted_without_the_trainer_obeys_the_same_words(
    photos: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    network, rows, _ = trained(tmp_path / "run", photos, *words)
    fitter, recipe = fitted(photos, *words)
    for name, value in network.head.state_dict().items():
        torch.testing.assert_close(fitter.network.head.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    if recipe.regularizer.l1:
        assert all(0 < row["head/zeros"] < 1 for row in rows)
        assert all(row["train/l2_sp"] > 0 for row in rows)


def test_rare_classes_see_views_of_their_own(photos: Path, tmp_path: Path) -> None:
    cache = f"cache.dir={tmp_path}/cache"
    trained(tmp_path / "run", photos, "imbalance=augment_minority", "balance.views=2", "strategy.epochs=1", cache)
    spaces = [info for info in Cache(tmp_path / "cache", 10**9).infos() if info.kind == "features"]
    found = {bool((info.description.get("augment") or {}).get("erase")): info.entries for info in spaces}
    assert found == {False: 48 + 16, True: 2 * 6}


def test_repeats_take_features_of_their_own() -> None:
    rows, names = np.arange(3), [f"{number:032x}" for number in range(3)]
    first, second = ([f"{view}{name[1:]}" for name in names[1:]] for view in (1, 2))
    plain, varied = (Entries([Shard.of(keys, {VALUES: np.arange(len(keys), dtype=np.float32)[:, None] + start})])
                     for keys, start in ((names, 0), ([*first, *second], 10)))  # fmt: skip
    repeats = CachedFeatures(rows[1:], [names[1:], first, second], [plain, varied, varied])
    served = FeatureRows(CachedFeatures(rows, [names], [plain]), np.zeros(3, dtype=np.int64), repeats=repeats)
    draws = [Draw(0, 7, True), Draw(1, 7, True), Draw(1, 8, True, True), Draw(2, 9, True, True), Draw(2, 9, True)]
    assert served.__getitems__(draws)["features"][:, 0].tolist() == [0, 1, 10, 13, 2]
    assert served.__getitems__(draws[:2])["features"][:, 0].tolist() == [0, 1]
    assert served.__getitems__(draws[2:4])["features"][:, 0].tolist() == [10, 13]
