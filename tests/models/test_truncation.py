"""Truncated backbones: whole at depth 1, smaller below it, and in every other way like any other network."""

from pathlib import Path

import pytest
import torch

from finetune.config.settings.phases import Phase
from finetune.errors import ConfigError
from finetune.features.frozen_prefix import find_cut
from finetune.models.bundle import load_bundle, save_bundle
from finetune.models.layers import layers
from finetune.models.network import Network, build_network
from finetune.models.truncation import truncation_points
from finetune.training.freezing import apply_phase

# families of timm with different ways to be cut
SIZES = {
    "test_efficientnet": 32, "test_vit": 32, "test_resnet": 32, "test_convnext": 64, "test_byobnet": 32,
    "mobilenetv3_small_050": 32, "convnext_atto": 32, "deit_tiny_distilled_patch16_224": 32, "resnet18": 32,
    "swin_tiny_patch4_window7_224": 224, "regnetx_002": 32, "densenet121": 32,
}  # fmt: skip
FEW = ("test_efficientnet", "test_vit", "test_resnet", "test_convnext")


def build(name: str, depth: float | None) -> Network:
    torch.manual_seed(0)
    return build_network(name, num_classes=3, weights="none", image_size=SIZES[name], depth=depth)


def images(name: str) -> torch.Tensor:
    return torch.randn(2, 3, SIZES[name], SIZES[name], generator=torch.Generator().manual_seed(1))


def size(network: Network) -> int:
    return sum(value.numel() for value in network.backbone.parameters())


@pytest.mark.parametrize("name", FEW)
def test_depth_of_one_is_the_whole_network(name: str) -> None:
    whole, kept = build(name, None).eval(), build(name, 1.0).eval()
    assert whole.state_dict().keys() == kept.state_dict().keys()
    assert torch.equal(whole(images(name)), kept(images(name)))


@pytest.mark.parametrize("name", SIZES)
def test_lower_depth_keeps_weights_and_has_fewer_of_them(name: str) -> None:
    whole = build(name, None)
    sizes = [size(whole)]
    for depth in (0.75, 0.4):
        network = build(name, depth).eval()
        own, original = network.backbone.state_dict(), whole.backbone.state_dict()
        assert all(torch.equal(value, original[key]) for key, value in own.items())
        features = network.backbone(images(name))
        assert features.shape == (2, network.num_features) and features.isfinite().all()
        assert network(images(name)).shape == (2, 3)
        sizes.append(size(network))
    assert sizes[0] >= sizes[1] > sizes[2]


def test_features_of_a_truncated_network_are_those_of_its_last_block() -> None:
    whole, kept = build("test_resnet", None).eval(), build("test_resnet", 0.5).eval()
    seen: list[torch.Tensor] = []
    whole.backbone.layer2.register_forward_hook(lambda module, inputs, output: seen.append(output))
    whole.backbone(images("test_resnet"))
    assert torch.equal(kept.backbone(images("test_resnet")), seen[0].mean((2, 3)))


def test_truncated_transformer_keeps_norm_and_pooling() -> None:
    whole, kept = build("test_vit", None).eval(), build("test_vit", 0.5).eval()
    seen: list[torch.Tensor] = []
    whole.backbone.blocks[2].register_forward_hook(lambda module, inputs, output: seen.append(output))
    whole.backbone(images("test_vit"))
    expected = whole.backbone.forward_head(whole.backbone.norm(seen[0]))
    assert torch.equal(kept.backbone(images("test_vit")), expected)


@pytest.mark.parametrize("name", SIZES)
def test_every_parameter_of_a_truncated_network_is_in_one_layer_and_moves(name: str) -> None:
    network = build(name, 0.5)
    listed = [parameter for layer in layers(network) for parameter in layer.parameters]
    assert sorted(listed) == sorted(dict(network.named_parameters()))
    apply_phase(network, Phase("all", "all"))
    # a weight without a gradient would be an error in a distributed run
    network(images(name)).sum().backward()
    assert [key for key, value in network.named_parameters() if value.grad is None] == []
    assert sum(value.requires_grad for value in network.parameters()) == len(listed)


@pytest.mark.parametrize("name", FEW)
def test_the_last_layers_of_a_truncated_network_can_move_alone(name: str) -> None:
    network = build(name, 0.75)
    apply_phase(network, Phase("last", "last", fraction=0.3))
    moving = [name for name, value in network.named_parameters() if value.requires_grad]
    assert "head.1.weight" in moving and 0 < len(moving) < len(list(network.parameters()))
    assert find_cut(network, images(name)) is not None


@pytest.mark.parametrize("name", SIZES)
def test_truncated_network_is_built_again_from_its_bundle(name: str, tmp_path: Path) -> None:
    network = build(name, 0.6).eval()
    save_bundle(network, ("a", "b", "c"), "multiclass", tmp_path)
    again = load_bundle(tmp_path).network
    assert again.options["depth"] == 0.6
    assert torch.equal(network(images(name)), again(images(name)))


def test_blocks_within_a_stage_can_be_left_out() -> None:
    network = build("resnet18", 0.9)  # 8 blocks: 8 of them are the fewest that make 90 %
    assert len(network.backbone.layer4) == 2
    network = build("resnet18", 0.85)
    assert len(network.backbone.layer4) == 1 and network.num_features == 512
    assert [end.blocks for end in truncation_points(build("resnet18", None).backbone)] == list(range(1, 9))


@pytest.mark.parametrize(
    ("name", "depth", "message"),
    [
        ("test_resnet", 0.0, "model.depth=0.0 is not a share of the blocks above 0 and at most 1"),
        ("test_resnet", 1.5, "model.depth=1.5 is not a share"),
        ("hrnet_w18_small", 0.5, "hrnet_w18_small cannot be cut off after some of its blocks"),
        ("coat_tiny", 0.5, "coat_tiny cannot be cut off after some of its blocks"),
    ],
)
def test_what_cannot_be_cut_is_one_line(name: str, depth: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_network(name, num_classes=2, weights="none", depth=depth)
    assert "\n" not in str(caught.value)
