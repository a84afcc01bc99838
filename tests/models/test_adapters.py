"""LoRA adapters and the finished model: nothing changes at the start, and merging changes nothing."""

from pathlib import Path

import pytest
import torch

from finetune.errors import ConfigError
from finetune.models.adapters import adapter_parameters, add_lora, has_adapters, merge
from finetune.models.bundle import load_bundle, save_bundle
from finetune.models.heads.modules import HeadSpec
from finetune.models.layers import layers
from finetune.models.network import Network, build_network

NAMES = ("test_resnet", "test_efficientnet", "test_vit", "test_convnext")


def network_of(name: str, **options: object) -> Network:
    """Return a small network with seeded random weights."""
    torch.manual_seed(0)
    return build_network(name, num_classes=3, weights="none", **{"image_size": 32, **options}).eval()  # type: ignore[arg-type]


def trained(network: Network) -> Network:
    """Return the network with adapters that are not at their start."""
    torch.manual_seed(1)
    moving = set(adapter_parameters(network))
    for name, parameter in network.named_parameters():
        if name in moving:
            parameter.data.normal_(std=0.1)
    return network


@pytest.mark.parametrize("name", NAMES)
def test_adapters_change_nothing_at_the_start(name: str) -> None:
    network = network_of(name)
    images = torch.randn(2, 3, 32, 32)
    before = network(images)
    assert add_lora(network.backbone, rank=2, alpha=4.0)
    assert torch.equal(network(images), before)


@pytest.mark.parametrize("targets", [(), ("*conv*",)])
@pytest.mark.parametrize("name", NAMES[:2])
def test_merged_lora_equals_unmerged_in_convolutions(name: str, targets: tuple[str, ...]) -> None:
    network = network_of(name)
    add_lora(network.backbone, rank=2, alpha=4.0, targets=targets)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(merge(trained(network))(images), network(images))


@pytest.mark.parametrize("name", NAMES)
def test_merged_lora_equals_unmerged(name: str) -> None:
    network = network_of(name)
    plain = network_of(name)
    add_lora(network.backbone, rank=2, alpha=4.0)
    images = torch.randn(2, 3, 32, 32)
    before = network(images)
    merged = merge(trained(network))
    assert not torch.equal(network(images), before)
    assert torch.equal(merged(images), network(images))
    assert has_adapters(network)
    assert not has_adapters(merged)
    assert list(merged.state_dict()) == list(plain.state_dict()) or set(merged.state_dict()) == set(plain.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_adapters_belong_to_their_layers(name: str) -> None:
    network = network_of(name)
    plain = len(layers(network))
    add_lora(network.backbone, rank=2, alpha=4.0)
    found = layers(network)
    assert len(found) == plain
    assert set(adapter_parameters(network)) <= {parameter for layer in found for parameter in layer.parameters}


def test_misspelt_target_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'qkv'"):
        add_lora(network_of("test_vit").backbone, rank=2, alpha=4.0, targets=["qvk"])


@pytest.mark.parametrize("options", [{}, {"head": HeadSpec("mlp", 8, 0.1)}, {"in_chans": 1}, {"mean": [0.1, 0.2, 0.3]}])
@pytest.mark.parametrize("lora", [False, True])
def test_bundle_gives_the_same_logits(tmp_path: Path, options: dict[str, object], lora: bool) -> None:
    network = network_of("test_efficientnet", **options)
    if lora:
        add_lora(network.backbone, rank=2, alpha=4.0)
        trained(network)
    save_bundle(network, ("a", "b", "c"), "multiclass", tmp_path)
    bundle = load_bundle(tmp_path)
    images = torch.randn(2, network.spec.channels, 32, 32)
    assert torch.equal(bundle.network(images), network(images))
    assert bundle.labels == ("a", "b", "c")
    assert bundle.network.spec == network.spec


@pytest.mark.parametrize("damage", ["model.json", "weights.safetensors"])
def test_damaged_bundle_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    save_bundle(network_of("test_resnet"), ("a", "b", "c"), "multiclass", tmp_path)
    (tmp_path / damage).write_text("{}")
    with pytest.raises(ConfigError) as caught:
        load_bundle(tmp_path)
    assert "damaged" in str(caught.value) and "\n" not in str(caught.value)
    (tmp_path / damage).unlink()
    with pytest.raises(ConfigError, match="missing"):
        load_bundle(tmp_path)
