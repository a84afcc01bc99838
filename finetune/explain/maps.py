"""Maps of what in an image speaks for a class, by captum, for any backbone of timm.

It decides which layer is looked at and how its values become a map; drawing it is left to `overlay`.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune.errors import ConfigError, nearest
from finetune.models.network import Network

METHODS = ("auto", "gradcam", "rollout", "integrated_gradients")
# along the path of integrated gradients, and how far their sum may be off
STEPS, TOLERANCE = (32, 128, 512), 0.1
BATCH, CELLS = 16, 28

log = logging.getLogger(__name__)


def resolve_method(network: Network, method: str) -> str:
    """Return how a network is explained; auto is Grad-CAM where it has a spatial layer, else integrated gradients.

    Raises:
        ConfigError: The method is not known, or the network has nothing for it to look at.
    """
    if method not in METHODS:
        raise ConfigError(f"method={method} is not one of {', '.join(METHODS)}.{nearest(method, METHODS)}")
    spatial = tokens_layer(network) is not None or has_grid(network)
    if method == "auto":
        return "gradcam" if spatial else "integrated_gradients"
    if method == "gradcam" and not spatial:
        raise ConfigError(f"{network.name} has no spatial layer for Grad-CAM. Use method=integrated_gradients.")
    if method == "rollout" and not attentions(network):
        raise ConfigError(f"{network.name} has no attention to roll out. Use method=gradcam.")
    return method


def explain(network: Network, images: Tensor, targets: Tensor, method: str) -> npt.NDArray[np.float32]:
    """Return maps (N, h, w), each from 0 to 1, of what speaks for a class in each image.

    Args:
        network: In whatever mode; it is used in eval mode and is not changed.
        images: Images (N, C, H, W), normalised, on the network's device.
        targets: The class of each (N,).
        method: gradcam, rollout or integrated_gradients, from `resolve_method`.
    """
    make = {"gradcam": gradcam, "rollout": rollout, "integrated_gradients": integrated_gradients}[method]
    with evaluating(network):
        parts = [
            make(network, images[start : start + BATCH], targets[start : start + BATCH]).detach().float().cpu()
            for start in range(0, len(images), BATCH)
        ]
    values = torch.cat(parts).clamp(min=0)
    return np.asarray((values / values.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)).numpy(), np.float32)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network in eval mode without gradients of its own, and everything back as it was."""
    modes = [(module, module.training) for module in network.modules()]
    wanted = [(value, value.requires_grad) for value in network.parameters()]
    network.eval()
    network.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for value, gradient in wanted:
            value.requires_grad_(gradient)


class Spatial(nn.Module):
    """A network whose spatial features pass through a module of their own, where captum can look at them.

    Attributes:
        point: Sees the features as (B, C, H, W).
    """

    def __init__(self, network: Network) -> None:
        """Take a network apart."""
        super().__init__()
        self.network = network
        self.point = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W)."""
        backbone: Any = self.network.backbone
        features = backbone.forward_features(images)
        last = is_channels_last(self.network, features)
        grid = self.point(features.movedim(-1, 1) if last else features)
        pooled = backbone.forward_head(grid.movedim(1, -1) if last else grid)
        logits: Tensor = self.network.head(pooled)
        return logits


def gradcam(network: Network, images: Tensor, targets: Tensor) -> Tensor:
    """Return maps (B, h, w) of the last spatial layer.

    A transformer's class token alone is read after its last block, so the tokens that enter that block are looked at;
    they are weighted one by one instead of by their channels' mean gradient.
    Source: Selvaraju et al. 2017, Grad-CAM, section 3; for tokens Draelos and Carin 2020, HiResCAM, section 3.
    """
    from captum.attr import LayerGradCam, LayerGradientXActivation

    inputs = images.clone().requires_grad_(True)
    layer = tokens_layer(network)
    if layer is None:
        model = Spatial(network)
        found: Tensor = LayerGradCam(model, model.point).attribute(inputs, target=targets, relu_attributions=True)
        return found[:, 0]
    tokens: Tensor = LayerGradientXActivation(network, layer).attribute(inputs, target=targets)
    return as_grid(network, tokens.sum(dim=-1).relu(), images)


def integrated_gradients(network: Network, images: Tensor, targets: Tensor) -> Tensor:
    """Return maps (B, h, w) of the pixels' share in the logit, from the mean image on, summed over cells.

    Source: Sundararajan, Taly and Yan 2017, Axiomatic attribution for deep networks, section 3.
    """
    found = pixel_shares(network, images, targets).abs().sum(dim=1, keepdim=True)
    return nn.functional.adaptive_avg_pool2d(found, (CELLS, CELLS))[:, 0]


def pixel_shares(network: Network, images: Tensor, targets: Tensor) -> Tensor:
    """Return the share (B, C, H, W) of each value in the logit; their sum is how far it is from that of the mean.

    Where the sum is off, the path is walked in more steps; what is still off then is said.
    """
    from captum.attr import IntegratedGradients

    method, baseline = IntegratedGradients(network), torch.zeros_like(images)
    for steps in STEPS:
        found, delta = method.attribute(
            images, baseline, target=targets, n_steps=steps, internal_batch_size=BATCH, return_convergence_delta=True
        )
        with torch.no_grad():
            change = network(images).gather(1, targets[:, None]) - network(baseline).gather(1, targets[:, None])
        off = float((delta.abs() / change[:, 0].abs().clamp(min=1e-3)).median())
        if off <= TOLERANCE:
            break
    else:
        log.warning(
            "Integrated gradients are off by %.0f %% after %d steps: do not trust these maps.", 100 * off, steps
        )
    return torch.as_tensor(found)


def rollout(network: Network, images: Tensor, targets: Tensor) -> Tensor:
    """Return maps (B, h, w) of where attention comes from, over all blocks; they are the same for every class.

    Source: Abnar and Zuidema 2020, Quantifying attention flow in transformers, section 3.
    """
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
    joint: Tensor | None = None
    for weights in seen:
        mean = weights.mean(dim=1)
        step = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
        joint = step if joint is None else step @ joint
    assert joint is not None
    prefix = int(getattr(network.backbone, "num_prefix_tokens", 0))
    source = joint[:, 0] if prefix else joint.mean(dim=1)
    return as_grid(network, source, images)


def as_grid(network: Network, tokens: Tensor, images: Tensor) -> Tensor:
    """Return values of tokens (B, N) as maps (B, h, w), without those that are no part of the image."""
    prefix = int(getattr(network.backbone, "num_prefix_tokens", 0))
    values = tokens[:, prefix:]
    height, width = images.shape[-2:]
    rows = round(math.sqrt(values.shape[1] * height / width))
    return values.reshape(len(values), rows, -1)


def tokens_layer(network: Network) -> nn.Module | None:
    """Return the layer whose tokens (B, N, C) enter a transformer's last block; None for other networks."""
    blocks = getattr(network.backbone, "blocks", None)
    if not attentions(network) or not isinstance(blocks, nn.Sequential | nn.ModuleList):
        return None
    found = getattr(blocks[-1], "norm1", None)
    return found if isinstance(found, nn.Module) else None


def attentions(network: Network) -> list[Any]:
    """Return the attention of each block of a plain transformer, as timm's vision transformers have it."""
    blocks = getattr(network.backbone, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not hasattr(network.backbone, "num_prefix_tokens"):
        return []
    found = [getattr(block, "attn", None) for block in blocks]
    plain = all(hasattr(layer, "fused_attn") and hasattr(layer, "attn_drop") for layer in found)
    return found if found and plain else []


def has_grid(network: Network) -> bool:
    """Return whether the network's last features are a grid of more than one cell."""
    spec = network.spec
    device = next(network.parameters()).device
    backbone: Any = network.backbone
    with evaluating(network), torch.no_grad():
        found = backbone.forward_features(torch.zeros(1, spec.channels, spec.height, spec.width, device=device))
    return isinstance(found, Tensor) and found.ndim == 4 and found[0].numel() > max(found.shape[1], found.shape[-1])


def is_channels_last(network: Network, features: Tensor) -> bool:
    """Return whether spatial features are (B, H, W, C), as some of timm's networks have them."""
    form = getattr(network.backbone, "output_fmt", None)
    if form is not None:
        return str(getattr(form, "value", form)).upper() == "NHWC"
    width = int(getattr(network.backbone, "num_features", 0))
    return features.shape[-1] == width and features.shape[1] != width
