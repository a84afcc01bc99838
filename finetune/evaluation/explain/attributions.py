"""Attribution maps: what in an image speaks for a class, by captum, for any backbone of timm."""

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune.errors import ConfigError, nearest
from finetune.evaluation.explain.target_layers import (
    Grid,
    Spatial,
    TargetLayer,
    attention_weights,
    find_target_layer,
    frozen_eval_mode,
    on_grid,
    rollout_grid,
)
from finetune.models.network import Network

_METHODS = ("auto", "gradcam", "rollout", "integrated_gradients")
# along the path of integrated gradients, and by what share their sum may be off
STEPS, TOLERANCE = (32, 128), 0.1
BATCH, CELLS = 16, 28

log = logging.getLogger(__name__)


def resolve_method(network: Network, method: str) -> str:
    """Return how a network is explained; auto is Grad-CAM where it has a spatial layer, else integrated gradients.

    Raises:
        ConfigError: The method is not known, or the network has nothing for it to look at.
    """
    check_attribution_method(method)
    if method in ("integrated_gradients", "rollout"):
        if method == "rollout" and rollout_grid(network) is None:
            raise ConfigError(f"{network.name} has no attention to roll out. Use method=gradcam.")
        return method
    if find_target_layer(network) is not None:
        return "gradcam"
    if method == "gradcam":
        raise ConfigError(f"{network.name} has no spatial layer for Grad-CAM. Use method=integrated_gradients.")
    return "integrated_gradients"


def check_attribution_method(method: str) -> None:
    """Refuse a method that there is none of.

    Raises:
        ConfigError: There is none.
    """
    if method not in _METHODS:
        raise ConfigError(f"method={method} is not one of {', '.join(_METHODS)}.{nearest(method, _METHODS)}")


def attribute(network: Network, images: Tensor, targets: Tensor, method: str) -> npt.NDArray[np.float32]:
    """Return maps (N, h, w), each from 0 to 1, of what speaks for a class in each image.

    Args:
        network: In whatever mode; it is used in eval mode and is not changed.
        images: Images (N, C, H, W), normalised, on the network's device.
        targets: The class of each (N,).
        method: gradcam, rollout or integrated_gradients, from `resolve_method`.
    """
    make = attribution_function(network, method)
    with frozen_eval_mode(network):
        parts = [
            make(images[start : start + BATCH], targets[start : start + BATCH]).detach().float().cpu()
            for start in range(0, len(images), BATCH)
        ]
    values = torch.cat(parts).clamp(min=0)
    return np.asarray((values / values.amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)).numpy(), np.float32)


def attribution_function(network: Network, method: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what makes maps (B, h, w) of images and the class of each."""
    if method == "integrated_gradients":
        return partial(integrated_gradients, network)
    place = find_target_layer(network)
    assert place is not None, "resolve_method says where a method applies"
    if method == "gradcam":
        return partial(gradcam, network, place)
    grid = rollout_grid(network)
    assert grid is not None, "resolve_method says where a method applies"
    return lambda images, targets: attention_rollout(network, grid, images, class_token=place.layer is not None)


def gradcam(network: Network, place: TargetLayer, images: Tensor, targets: Tensor) -> Tensor:
    """Return maps (B, h, w) of the last features that have a place.

    Tokens are weighted one by one instead of by their channels' mean gradient.
    Source: Selvaraju et al. 2017, Grad-CAM, section 3; for tokens Draelos and Carin 2020, HiResCAM, section 3.
    """
    from captum.attr import LayerGradCam, LayerGradientXActivation

    inputs = images.clone().requires_grad_(True)
    if place.layer is not None and place.grid is not None:
        tokens: Tensor = LayerGradientXActivation(network, place.layer).attribute(inputs, target=targets)
        return on_grid(tokens.sum(dim=-1).relu(), place.grid)
    model = Spatial(network, place.axis)
    if place.grid is not None:
        tokens = LayerGradientXActivation(model, model.point).attribute(inputs, target=targets)
        return on_grid(tokens.sum(dim=1).relu(), place.grid)
    found: Tensor = LayerGradCam(model, model.point).attribute(inputs, target=targets, relu_attributions=True)
    return found[:, 0]


def integrated_gradients(network: Network, images: Tensor, targets: Tensor) -> Tensor:
    """Return maps (B, h, w) of the pixels' share in the logit, from the mean image on, summed over cells.

    Source: Sundararajan, Taly and Yan 2017, Axiomatic attribution for deep networks, section 3.
    """
    found = pixel_shares(network, images, targets).abs().sum(dim=1, keepdim=True)
    return nn.functional.adaptive_avg_pool2d(found, (CELLS, CELLS))[:, 0]


def pixel_shares(network: Network, images: Tensor, targets: Tensor) -> Tensor:
    """Return the share (B, C, H, W) of each value in the logit; their sum is how far it is from that of the mean.

    One image after the other, since all steps of a path are in memory together.
    """
    found = [path_shares(network, image[None], int(target)) for image, target in zip(images, targets, strict=True)]
    far = [off for _, off in found if off > TOLERANCE]
    if far:
        log.warning(
            "Integrated gradients of %d of %d images are off by up to %.0f %% after %d steps: do not trust their maps.",
            len(far), len(found), 100 * max(far), STEPS[-1],
        )  # fmt: skip
    return torch.cat([shares for shares, _ in found])


def path_shares(network: Network, image: Tensor, target: int) -> tuple[Tensor, float]:
    """Return the shares (1, C, H, W) of an image's values in the logit, and by what share their sum is off.

    Where it is off too far, the path is walked in more steps.
    """
    from captum.attr import IntegratedGradients

    method, baseline = IntegratedGradients(network), torch.zeros_like(image)
    with torch.no_grad():
        change = float((network(image) - network(baseline))[0, target])
    shares, off = baseline, 0.0
    for steps in STEPS:
        shares = method.attribute(image, baseline, target=target, n_steps=steps, internal_batch_size=BATCH).detach()
        off = abs(float(shares.sum()) - change) / max(abs(change), 1e-3)
        if off <= TOLERANCE:
            break
    return shares, off


def attention_rollout(network: Network, grid: Grid, images: Tensor, *, class_token: bool) -> Tensor:
    """Return maps (B, h, w) of where attention comes from, over all blocks; they are the same for every class.

    Args:
        network: A plain transformer in eval mode.
        grid: Of its tokens.
        images: Images (B, C, H, W).
        class_token: Whether its head reads the first token alone, and not all that have a place.

    Source: Abnar and Zuidema 2020, Quantifying attention flow in transformers, section 3.
    """
    weights = attention_weights(network, images)
    own = torch.eye(weights[0].shape[-1], device=images.device)
    joint = own.expand(len(images), -1, -1)
    for each in weights:
        joint = (each.float().mean(dim=1) + own) / 2 @ joint
    return on_grid(joint[:, 0] if class_token else joint[:, grid.prefix :].mean(dim=1), grid)
