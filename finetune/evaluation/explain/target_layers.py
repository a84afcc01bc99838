"""Target layers: where in a backbone of timm features still have a place in the image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from finetune.models.network import Network, eval_mode


@dataclass(frozen=True)
class Grid:
    """How features are spread over the image: so many rows and columns, behind tokens that stand for no place."""

    prefix: int
    rows: int
    columns: int


@dataclass(frozen=True)
class TargetLayer:
    """The last features with a place in the image that the pooled features depend on.

    Attributes:
        layer: The layer that gives them; None for what leaves the backbone before it is pooled.
        axis: Of their channels: 1 for (B, C, H, W), -1 for (B, H, W, C) and tokens (B, N, C).
        grid: Of tokens; None for features that have rows and columns of their own.
    """

    layer: nn.Module | None
    axis: int
    grid: Grid | None


class Spatial(nn.Module):
    """A network whose unpooled features pass through a module of their own, where captum can look at them.

    Attributes:
        point: Sees the features as (B, C, H, W), or tokens as (B, C, N).
    """

    def __init__(self, network: Network, axis: int) -> None:
        """Take a network apart whose features have their channels at an axis."""
        super().__init__()
        self.network = network
        self.axis = axis
        self.point = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        backbone: Any = self.network.backbone
        features = self.point(backbone.forward_features(images).movedim(self.axis, 1))
        logits: Tensor = self.network.head(backbone.forward_head(features.movedim(1, self.axis)))
        return logits


@contextmanager
def frozen_eval_mode(network: nn.Module) -> Iterator[None]:
    """Put a network in eval mode without gradients of its own, and everything back as it was."""
    wanted = [(value, value.requires_grad) for value in network.parameters()]
    network.requires_grad_(False)
    try:
        with eval_mode(network), torch.enable_grad():
            yield
    finally:
        for value, gradient in wanted:
            value.requires_grad_(gradient)


def blank_image(network: Network) -> Tensor:
    """Return an image (1, C, H, W) of the mean colour, on the network's device."""
    spec = network.spec
    return torch.zeros(1, spec.channels, spec.height, spec.width, device=next(network.parameters()).device)


def find_target_layer(network: Network) -> TargetLayer | None:
    """Return the last features with a place that the pooled ones depend on; None where there are none.

    A head that reads the class token alone does not depend on the other tokens that leave the backbone: these are
    looked at where they enter the last block, or where a part of its own makes the class token of them.
    """
    backbone: Any = network.backbone
    last = last_layers(network)
    seen: list[tuple[nn.Module | None, Any]] = []
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: seen.append((module, output))) for layer in last
    ]
    try:
        with frozen_eval_mode(network):
            features = backbone.forward_features(blank_image(network).requires_grad_(True))
            pooled = backbone.forward_head(features)
            for layer, found in [(None, features), *sorted(seen, key=lambda pair: last.index(pair[0]))]:
                place = _place_of(network, layer, found)
                if place is not None and depends_on_spatial(pooled, found, place):
                    return place
    finally:
        for hook in hooks:
            hook.remove()
    return None


def last_layers(network: Network) -> list[Any]:
    """Return the last block of a transformer and what its tokens enter it through, the later one first."""
    blocks = getattr(network.backbone, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not len(blocks):
        return []
    entry = getattr(blocks[-1], "norm1", None)
    return [blocks[-1], entry] if isinstance(entry, nn.Module) else [blocks[-1]]


def _place_of(network: Network, layer: nn.Module | None, features: Any) -> TargetLayer | None:
    """Return where features have places; None where they have none, or one alone."""
    if not isinstance(features, Tensor):
        return None
    if features.ndim == 3:
        grid = grid_of(network, features.shape[1])
        return TargetLayer(layer, -1, grid) if grid is not None else None
    if features.ndim != 4 or layer is not None:
        return None
    axis = -1 if is_channels_last(network, features) else 1
    return TargetLayer(None, axis, None) if features[0].numel() > features.shape[axis] else None


def depends_on_spatial(pooled: Tensor, features: Tensor, place: TargetLayer) -> bool:
    """Return whether pooled features (1, F) depend on those that have a place.

    They are summed with unequal weights, since a normalised vector's sum and length are the same whatever it is.
    """
    weights = torch.linspace(0.5, 1.0, pooled.numel(), device=pooled.device).view_as(pooled)
    (found,) = torch.autograd.grad((weights * pooled).sum(), features, retain_graph=True, allow_unused=True)
    if found is None:
        return False
    inside = found if place.grid is None else found[:, place.grid.prefix :]
    return bool(inside.abs().max() > 0)


def grid_of(network: Network, count: int) -> Grid | None:
    """Return how many tokens are spread over an input of the network; None where they fill no grid of its shape."""
    shape = network.spec.height / network.spec.width
    for prefix in dict.fromkeys((int(getattr(network.backbone, "num_prefix_tokens", 0)), 0, 1)):
        left = count - prefix
        rows = round(sqrt(max(left, 0) * shape))
        if left > 1 and rows and left % rows == 0 and rows == round(left // rows * shape):
            return Grid(prefix, rows, left // rows)
    return None


def on_grid(tokens: Tensor, grid: Grid) -> Tensor:
    """Return values of tokens (B, N) as maps (B, h, w), without those that stand for no place."""
    return tokens[:, grid.prefix :].reshape(len(tokens), grid.rows, grid.columns)


def is_channels_last(network: Network, features: Tensor) -> bool:
    """Return whether spatial features are (B, H, W, C), as some of timm's networks have them."""
    form = getattr(network.backbone, "output_fmt", None)
    if form is not None:
        return str(getattr(form, "value", form)).upper() == "NHWC"
    width = int(getattr(network.backbone, "num_features", 0))
    return features.shape[-1] == width and features.shape[1] != width


def attentions(network: Network) -> list[Any]:
    """Return the attention of each block of a plain transformer, as timm's vision transformers have it."""
    blocks = getattr(network.backbone, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not hasattr(network.backbone, "num_prefix_tokens"):
        return []
    found = [getattr(block, "attn", None) for block in blocks]
    plain = all(hasattr(layer, "fused_attn") and hasattr(layer, "attn_drop") for layer in found)
    return found if found and plain else []


def attention_weights(network: Network, images: Tensor) -> list[Tensor]:
    """Return what each token takes from each (B, heads, N, N), for each block of a plain transformer."""
    seen: list[Tensor] = []
    layers = attentions(network)
    fused = [bool(layer.fused_attn) for layer in layers]
    hooks = [layer.attn_drop.register_forward_hook(lambda m, i, output: seen.append(output)) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        with torch.no_grad():
            network(images)
    finally:
        for layer, before, hook in zip(layers, fused, hooks, strict=True):
            layer.fused_attn = before
            hook.remove()
    return seen


def rollout_grid(network: Network) -> Grid | None:
    """Return how the tokens that attend to each other are spread; None where attention is not between such tokens."""
    with frozen_eval_mode(network):
        weights = attention_weights(network, blank_image(network))
    counts = {each.shape[-2:] for each in weights}
    if len(counts) != 1 or len(shape := next(iter(counts))) != 2 or shape[0] != shape[1]:
        return None
    place = find_target_layer(network)
    grid = grid_of(network, shape[0])
    return grid if place is not None and grid == place.grid else None
