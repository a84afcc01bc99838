"""The frozen prefix: the backbone is cut where all that moves lies behind, and goes on from what was kept."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from configured import settings_for
from tiny import strategy_config, tiny_images, tiny_table

from finetune.config.settings.phases import Phase, build_strategy
from finetune.config.settings.training_groups import OptimizerSettings, Schedule, TrainerSettings
from finetune.data.cache.store import Cache
from finetune.errors import ConfigError
from finetune.features.extract import FeatureSettings
from finetune.features.frozen_prefix import Cut, find_cut
from finetune.features.prefix_datamodule import Costs, decision
from finetune.models.adapters import add_lora
from finetune.models.network import Network, build_network
from finetune.runs.run import Run
from finetune.training.callbacks.checkpoints import Checkpoints
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import Recipe, fit
from finetune.training.freezing import apply_phase
from finetune.training.losses import CrossEntropy
from finetune.training.resume import ResumePoint

SIZES = {"test_vit": 160, "test_vit3": 160}


def network_of(name: str, **options: Any) -> Network:
    torch.manual_seed(0)
    return build_network(name, num_classes=10, weights="none", image_size=SIZES.get(name, 64), **options)


def images_for(network: Network, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, network.spec.height, network.spec.width)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("test_efficientnet", "blocks.1"),
        ("test_resnet", "layer2"),
        ("test_vit", "blocks.2"),
        ("test_convnext", "stages.2.blocks.1"),
    ],
)
def test_the_rest_of_a_backbone_goes_on_from_kept_activations(name: str, place: str) -> None:
    network = network_of(name)
    apply_phase(network, Phase("p", "last", fraction=0.4))
    cut = find_cut(network, images_for(network))
    assert cut is not None and cut.name == place
    images = images_for(network, 5)
    network.eval()
    with torch.no_grad():
        whole = network.backbone(images)
        kept = cut.encode(network.backbone, images)
        resumed = cut.resume(network.backbone, kept)
    assert kept.shape == (5, *cut.shape)
    torch.testing.assert_close(resumed, whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(network.backbone(images), whole)  # as it was


def test_gradients_behind_the_cut_are_those_of_the_whole(tmp_path: Path) -> None:
    network = network_of("test_resnet")
    apply_phase(network, Phase("p", "last", fraction=0.4))
    images = images_for(network, 4)
    cut = find_cut(network, images)
    assert cut is not None

    def gradients(features: torch.Tensor) -> dict[str, torch.Tensor]:
        network.zero_grad()
        features.square().sum().backward()
        return {n: p.grad.clone() for n, p in network.backbone.named_parameters() if p.grad is not None}

    whole = gradients(network.backbone(images))
    with torch.no_grad():
        kept = cut.encode(network.backbone, images)
    resumed = gradients(cut.resume(network.backbone, kept))
    assert whole.keys() == resumed.keys()
    for name in whole:
        torch.testing.assert_close(resumed[name], whole[name], atol=1e-4, rtol=1e-4)


def test_adapters_in_late_blocks_leave_a_prefix() -> None:
    network = network_of("test_vit")
    add_lora(network.backbone, rank=2, alpha=2.0, targets=["blocks.5.*"])
    apply_phase(network, Phase("p", "adapters"))
    cut = find_cut(network, images_for(network))
    assert cut is not None and cut.name.startswith("blocks.")


@pytest.mark.parametrize("phase", [Phase("a", "all"), Phase("b", "bias_norm")])
def test_there_is_no_cut_where_all_depths_move(phase: Phase) -> None:
    network = network_of("test_vit")
    apply_phase(network, phase)
    assert find_cut(network, images_for(network)) is None


def test_nothing_is_cut_behind_what_is_random() -> None:
    network = network_of("test_vit", drop_path_rate=0.5)
    apply_phase(network, Phase("p", "last", fraction=0.4))
    network.resting = ()
    network.train()  # as if the frozen blocks dropped paths
    cut = find_cut(network, images_for(network))
    assert cut is None or cut.name in ("patch_embed", "norm_pre", "blocks.0.norm1", "blocks.0")


def test_the_modes_are_left_as_they_were() -> None:
    network = network_of("test_resnet")
    apply_phase(network, Phase("p", "last", fraction=0.4, batchnorm="train"))
    before = [module.training for module in network.modules()]
    find_cut(network, images_for(network))
    assert [module.training for module in network.modules()] == before


@pytest.mark.parametrize(
    ("costs", "worth", "words"),
    [
        (Costs(1000, 300, 0.1, 10**6, 10**9), True, "300 passes of images in place of 1,000: about 70 s less"),
        (Costs(200, 300, 0.1, 10**6, 10**9), False, "that would be 300 passes of images in place of 200"),
        (Costs(1000, 300, 0.1, 10**10, 10**9), False, "they take 10.0 GB, more than cache.max_size=1.0 GB"),
    ],
)
def test_the_choice_is_by_time_and_room_and_says_why(costs: Costs, worth: bool, words: str) -> None:
    said = decision("last", Cut("layer2", {"layer2": (4,)}, ()), costs)
    assert costs.worth_it == worth and words in said
    assert ("are kept" in said) == worth


def train(folder: Path, features: str, *, changed: str = "", epochs: int = 4) -> tuple[Network, dict[str, float]]:
    """Train the last layers of a small network on unaugmented images by the real trainer."""
    pl.seed_everything(0, verbose=False)
    table = tiny_table(train=24, val=8, test=8)
    network = network_of("test_resnet")
    if changed:
        with torch.no_grad():
            network.backbone.get_parameter(changed)[0] += 0.1
    images = tiny_images(table, network)
    images.train_transform, images.augmented = images.eval_transform, False
    recipe = Recipe(
        CrossEntropy(),
        settings_for(
            OptimizerSettings, "sgd", lr=1e-2, options={"momentum": 0.9}
        ),  # AdamW would magnify rounding errors
        settings_for(Schedule, "constant", 0.0, 1.0),
        settings_for(TrainerSettings, "cpu", 1),
        features=FeatureSettings(cache=Cache(folder / "cache", 10**9)),
    )
    entry = {"name": "last", "train": "last", "fraction": 0.4, "epochs": epochs, "features": features}
    strategy = build_strategy({**strategy_config("full"), "phases": [entry]})
    metrics = MetricsCallback(table.task, 10, None, 100)
    checkpoints = Checkpoints(Run(folder / features), "val/accuracy", "max")
    fit(network, strategy, images, recipe, place=ResumePoint(), metrics=metrics, checkpoints=checkpoints,
        callbacks=lambda: [], loggers=[])  # fmt: skip
    return network, metrics.values


def test_training_on_kept_activations_equals_training_on_the_same_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    plain, values = train(tmp_path, "none")
    kept, same = train(tmp_path, "cached")
    assert "activations after layer2 are kept" in caplog.text
    assert same["val/loss"] == pytest.approx(values["val/loss"], abs=1e-4)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(kept.state_dict()[name], value, atol=1e-4, rtol=1e-3)


def test_one_epoch_is_trained_on_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    train(tmp_path, "cached", epochs=1)
    assert "are not kept: that would be 32 passes of images in place of 32" in caplog.text


def test_kept_activations_depend_on_the_prefix_alone(tmp_path: Path) -> None:
    train(tmp_path, "cached")
    files = list((tmp_path / "cache").glob("features/*/*.safetensors"))
    train(tmp_path, "cached", changed="layer4.0.conv1.weight")
    assert list((tmp_path / "cache").glob("features/*/*.safetensors")) == files
    train(tmp_path, "cached", changed="layer1.0.conv1.weight")
    assert len(list((tmp_path / "cache").glob("features/*/*.safetensors"))) == 2 * len(files)


def test_phases_in_which_all_depths_move_cannot_cache() -> None:
    entry = {"name": "all", "train": "all", "features": "cached"}
    with pytest.raises(ConfigError, match="those of all depths move"):
        build_strategy({**strategy_config("full"), "phases": [entry]})
