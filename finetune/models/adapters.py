"""LoRA: low-rank changes of frozen weights, as parametrizations that torch itself merges."""

import copy
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from finetune.errors import ConfigError, nearest
from finetune.models.network import Network


class LowRank(nn.Module):
    """A weight W of shape (out, ...) becomes W + alpha / rank * (up @ down), reshaped to W's shape.

    `up` starts at zero, so that the network's outputs are unchanged at first.

    Source: Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models, section 4.1.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        """Make an adapter for a weight."""
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, weight[0].numel()))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight."""
        return weight + self.scale * (self.up @ self.down).view_as(weight)


def default_targets(backbone: nn.Module) -> list[str]:
    """Return the linear layers of a transformer, or else the pointwise convolutions of a convolutional network."""
    linear = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and min(module.weight.shape) >= 16
    ]
    attention = any(isinstance(module, nn.Linear) and "attn" in name for name, module in backbone.named_modules())
    pointwise = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    ]
    dense = [name for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d) and module.groups == 1]
    return linear if attention else [*pointwise, *linear] or dense


def add_lora(backbone: nn.Module, *, rank: int, alpha: float, targets: Sequence[str] = ()) -> list[str]:
    """Add an adapter to each target layer and return the layers' names.

    Args:
        backbone: Changed in place.
        rank: Rank of the change.
        alpha: The change is scaled by alpha / rank.
        targets: Names or patterns (``*attn.qkv``) of linear or convolutional layers; empty for the model's usual ones.

    Raises:
        ConfigError: The rank is below 1, or a target names no layer.
    """
    if rank < 1:
        raise ConfigError(f"strategy.adapter.rank={rank} must be 1 or more.")
    able: dict[str, nn.Linear | nn.Conv2d] = {
        name: module for name, module in backbone.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)
    }
    names = (
        list(dict.fromkeys(name for pattern in targets for name in matching(pattern, able)))
        if targets
        else default_targets(backbone)
    )
    if not names:
        raise ConfigError(
            "The model has no layer that LoRA can adapt. Name some in strategy.adapter.targets, or choose "
            "another strategy."
        )
    for name in names:
        module = able[name]
        parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank, alpha))
    return names


def matching(pattern: str, able: Iterable[str]) -> list[str]:
    """Return the layers that a pattern names, whole or by the last parts of their names."""
    found = [name for name in able if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")]
    if not found:
        last = {name.rsplit(".", 1)[-1] for name in able}
        raise ConfigError(
            f"strategy.adapter.targets: '{pattern}' names no linear or convolutional "
            f"layer.{nearest(pattern, [*able, *last])}"
        )
    return found


def has_adapters(network: nn.Module) -> bool:
    """Return whether any layer has an adapter."""
    return any(isinstance(module, LowRank) for module in network.modules())


def adapter_parameters(network: Network) -> list[str]:
    """Return the full names of the adapters' parameters."""
    owners = [name for name, module in network.named_modules() if isinstance(module, LowRank)]
    return [f"{owner}.{part}" for owner in owners for part in ("down", "up")]


def merge(network: Network) -> Network:
    """Return a copy whose weights hold the adapters' changes; its outputs are bit for bit the same."""
    merged = copy.deepcopy(network)
    for module in list(merged.modules()):
        if parametrize.is_parametrized(module):
            # torch removes a parametrization from the class, which a copy shares with its original
            own = {key: value for key, value in vars(type(module)).items() if key not in ("__dict__", "__weakref__")}
            module.__class__ = type(type(module).__name__, type(module).__bases__, own)
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return merged
