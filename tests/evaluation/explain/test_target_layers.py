"""Features are looked at where they still have a place in the image, whatever form a backbone of timm gives them."""

import copy
from functools import cache

import pytest
import torch
from timm.utils import AttentionExtract
from torch import Tensor

from finetune.evaluation.explain.attributions import attribute, resolve_method
from finetune.evaluation.explain.target_layers import Spatial, TargetLayer, find_target_layer, frozen_eval_mode, grid_of
from finetune.models.network import Network, build_network

# a convolution, then tokens: a class token, a register and their mean, pooled by attention, in windows, with a
# class token that is added after the last block
NAMES = ("test_convnext", "test_vit", "test_vit2", "test_vit3", "hiera_tiny_224", "xcit_nano_12_p16_224")


@cache
def network_of(name: str) -> Network:
    torch.manual_seed(0)
    return build_network(name, num_classes=3, weights="none").eval()


def place_of(network: Network) -> TargetLayer:
    place = find_target_layer(network)
    assert place is not None
    return place


def spread(network: Network, place: TargetLayer, images: Tensor) -> Tensor:
    """Return the features that a place names, as (B, h, w, C)."""
    seen: list[Tensor] = []
    model = Spatial(network, place.axis)
    layer = place.layer if place.layer is not None else model.point
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with frozen_eval_mode(network), torch.no_grad():
        (model if place.layer is None else network)(images)
    hook.remove()
    found = seen[0] if place.layer is not None else seen[0].movedim(1, -1)
    if place.grid is None:
        return found
    return found[:, place.grid.prefix :].reshape(len(images), place.grid.rows, place.grid.columns, -1)


@pytest.mark.parametrize("name", NAMES)
def test_features_lie_where_the_image_was_changed(name: str) -> None:
    network = network_of(name)
    side = network.spec.height
    quarter = side // 4
    plain = torch.zeros(1, 3, side, side)
    for top, left in ((0, 0), (0, side - quarter), (side - quarter, 0)):
        changed = plain.clone()
        changed[:, :, top : top + quarter, left : left + quarter] = 3
        before, after = spread(network, place_of(network), torch.cat([plain, changed]))
        difference = (after - before).norm(dim=-1)
        row, column = divmod(int(difference.argmax()), difference.shape[1])
        assert (row >= difference.shape[0] / 2) == (top > 0)
        assert (column >= difference.shape[1] / 2) == (left > 0)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_pooled_depends_on_the_place(name: str) -> None:
    network = network_of(name)
    assert resolve_method(network, "auto") == "gradcam"
    images = torch.randn(2, 3, network.spec.height, network.spec.width, generator=torch.Generator().manual_seed(1))
    maps = attribute(network, images, torch.tensor([0, 1]), "gradcam")
    other = attribute(network, images, torch.tensor([2, 2]), "gradcam")
    assert maps.max() == 1
    assert abs(maps - other).max() > 0.1  # another class, another map


def test_a_class_token_is_looked_at_where_it_still_takes_from_the_others() -> None:
    backbone = network_of("test_vit").backbone
    assert place_of(network_of("test_vit")).layer is backbone.blocks[-1].norm1  # type: ignore[union-attr,index]
    later = network_of("xcit_nano_12_p16_224")
    assert place_of(later).layer is later.backbone.blocks[-1]  # type: ignore[union-attr,index]
    assert place_of(network_of("test_vit2")).layer is None


def test_pooled_tokens_alone_have_no_place() -> None:
    network = build_network("pit_ti_224", num_classes=2, weights="none")
    assert find_target_layer(network) is None
    assert resolve_method(network, "auto") == "integrated_gradients"


def test_tokens_fill_a_grid_of_the_inputs_shape_or_none() -> None:
    network = network_of("test_vit")
    side, prefix = network.spec.height // 16, network.backbone.num_prefix_tokens
    grid = grid_of(network, side * side + prefix)
    assert grid is not None
    assert (grid.prefix, grid.rows, grid.columns) == (prefix, side, side)
    assert grid_of(network, side * side + 40) is None
    assert grid_of(network, side * (side - 1) + prefix) is None


@pytest.mark.parametrize(("name", "token"), [("test_vit", True), ("test_vit2", False)])
def test_rollout_is_the_product_of_the_attention_that_timm_extracts(name: str, token: bool) -> None:
    network = network_of(name)
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    found = attribute(network, images, torch.tensor([0, 1]), "rollout")
    slow = copy.deepcopy(network.backbone)
    for block in slow.blocks:  # type: ignore[union-attr]
        block.attn.fused_attn = False  # or there are no weights to be seen
    with torch.no_grad():
        weights = AttentionExtract(slow, method="hook")(images)
    assert len(weights) == len(network.backbone.blocks)  # type: ignore[arg-type]
    prefix = network.backbone.num_prefix_tokens
    for number in range(2):
        joint = torch.eye(100 + prefix)
        for each in weights.values():
            joint = (0.5 * each[number].mean(0) + 0.5 * torch.eye(100 + prefix)) @ joint
        assert torch.allclose(joint.sum(1), torch.ones(100 + prefix), atol=1e-5)
        row = joint[0, prefix:] if token else joint[prefix:, prefix:].mean(0)
        assert torch.allclose(torch.from_numpy(found[number]).flatten(), row / row.max(), atol=1e-5)
    assert all(block.attn.fused_attn for block in network.backbone.blocks)  # type: ignore[union-attr]
