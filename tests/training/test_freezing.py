"""Frozen means frozen: what a phase leaves at rest is bit for bit the same afterwards."""

import copy
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from configured import settings_for
from tiny import strategy_config, tiny_images, tiny_table
from torch import nn

from finetune.config.settings.phases import Phase, build_strategy
from finetune.config.settings.training_groups import OptimizerSettings, Schedule, TrainerSettings
from finetune.errors import ConfigError
from finetune.models.adapters import add_lora
from finetune.models.layers import layers
from finetune.models.network import Network, build_network
from finetune.runs.run import Run
from finetune.training.callbacks.checkpoints import Checkpoints
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import Recipe, fit
from finetune.training.freezing import apply_phase, check_batch_statistics
from finetune.training.losses import CrossEntropy
from finetune.training.resume import ResumePoint


def network_of(name: str = "test_efficientnet", **options: Any) -> Network:
    """Return a small network with seeded random weights."""
    torch.manual_seed(0)
    return build_network(name, num_classes=10, weights="none", image_size=32, **options)


def train(network: Network, *phases: Phase, folder: Any) -> None:
    """Train phases by the real trainer, with validation in between."""
    pl.seed_everything(0, verbose=False)
    table = tiny_table(train=24, val=8, test=8)
    recipe = Recipe(
        CrossEntropy(),
        settings_for(OptimizerSettings, lr=1e-2),
        settings_for(Schedule, "constant", 0.0, 1.0),
        settings_for(TrainerSettings, "cpu", 1),
    )
    strategy = build_strategy({**strategy_config("full"), "phases": [vars(phase) for phase in phases]})
    fit(network, strategy, tiny_images(table, network), recipe, place=ResumePoint(),
        metrics=MetricsCallback(table.task, 10, None, 100), checkpoints=Checkpoints(Run(folder), "val/accuracy", "max"),
        callbacks=lambda: [], loggers=[])  # fmt: skip


@pytest.mark.parametrize("features", ["none", "cached"])
def test_frozen_backbone_keeps_batchnorm_statistics(tmp_path: Any, features: str) -> None:
    network = network_of(drop_path_rate=0.2)
    before = copy.deepcopy(network.backbone.state_dict())
    head = network.head[-1].weight.clone()  # type: ignore[union-attr,operator]
    train(network, Phase("probe", "head", epochs=2, batchnorm="train", features=features), folder=tmp_path)  # type: ignore[arg-type]
    assert [key for key, value in network.backbone.state_dict().items() if not torch.equal(value, before[key])] == []
    assert not torch.equal(network.head[-1].weight, head)  # type: ignore[index]


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_layers_below_the_fraction_stay_bit_identical(tmp_path: Any, fraction: float) -> None:
    network = network_of()
    before = copy.deepcopy(network.state_dict())
    train(network, Phase("partial", "last", fraction=fraction, epochs=2, batchnorm="train"), folder=tmp_path)
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    found = layers(network)
    count = -(-int(fraction * 100) * (len(found) - 1) // 100)
    resting = {name for layer in found[: len(found) - 1 - count] for name in layer.parameters}
    assert moved and not moved & resting
    # the statistics of resting layers stand still as well
    modules = {name.rpartition(".")[0] for name in resting}
    assert not {key for key in moved if key.rpartition(".")[0] in modules}


@pytest.mark.parametrize("policy", ["frozen", "train"])
def test_batchnorm_policy_decides_about_statistics(tmp_path: Any, policy: str) -> None:
    network = network_of("test_resnet")
    before = copy.deepcopy(network.state_dict())
    train(network, Phase("full", "all", epochs=1, batchnorm=policy), folder=tmp_path)  # type: ignore[arg-type]
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert any(key.endswith("running_mean") for key in moved) == (policy == "train")
    assert {name for name, _ in network.named_parameters()} <= moved


def test_bitfit_moves_biases_norms_and_head_alone(tmp_path: Any) -> None:
    network = network_of("test_vit")
    before = copy.deepcopy(network.state_dict())
    train(network, Phase("bitfit", "bias_norm", epochs=1), folder=tmp_path)
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.startswith("head.") or network.get_parameter(key).ndim == 1 for key in moved)


def test_lora_moves_adapters_and_head_alone(tmp_path: Any) -> None:
    network = network_of("test_vit")
    add_lora(network.backbone, rank=2, alpha=4.0)
    before = copy.deepcopy(network.state_dict())
    strategy = build_strategy(strategy_config("lora"))
    apply_phase(network, strategy.phases[0])
    assert all(
        ".up" in name or ".down" in name or name.startswith("head.")
        for name, value in network.named_parameters()
        if value.requires_grad
    )
    moving = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(moving, lr=0.1)
    for _ in range(2):
        network(torch.randn(2, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert any(".up" in key for key in moved)
    assert not any(key.endswith("original") for key in moved)


def test_resting_modules_are_in_eval_mode_after_every_switch() -> None:
    network = network_of(drop_path_rate=0.2)
    apply_phase(network, Phase("probe", "head"))
    for mode in (True, False, True):
        network.train(mode)
    assert not any(module.training for module in network.backbone.modules())
    assert all(module.training for module in network.head.modules())


def test_a_copy_keeps_its_own_modules_at_rest() -> None:
    network = network_of()
    apply_phase(network, Phase("probe", "head"))
    twin = copy.deepcopy(network)
    twin.train()
    assert not any(module.training for module in twin.backbone.modules())
    apply_phase(twin, Phase("full", "all", batchnorm="train"))
    assert all(module.training for module in twin.backbone.modules())
    assert not any(module.training for module in network.backbone.modules())


def test_phase_that_moves_nothing_more_is_refused() -> None:
    network = network_of("test_resnet")
    network.backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ConfigError, match="moves nothing"):
        apply_phase(network, Phase("full", "all"))


@pytest.mark.parametrize(
    ("name", "changes", "size", "refused"),
    [
        ("test_resnet", {"batchnorm": "train"}, 1, True),
        ("test_resnet", {"batchnorm": "train"}, 2, False),
        ("test_resnet", {"batchnorm": "frozen"}, 1, False),
        ("test_vit", {"batchnorm": "train"}, 1, False),
        ("test_resnet", {"batchnorm": "train", "train": "head"}, 1, False),
    ],
)
def test_batches_of_one_image_are_refused_where_statistics_follow_them(
    name: str, changes: dict[str, Any], size: int, refused: bool
) -> None:
    phase = Phase(**{"name": "full", "train": "all", **changes})
    network = network_of(name)
    if refused:
        with pytest.raises(ConfigError, match=r"data\.batch_size=1 leaves BatchNorm .* Set data\.batch_size=2"):
            check_batch_statistics(network, [phase], size)
    else:
        check_batch_statistics(network, [phase], size)
