"""Freezing: the one place that decides which parameters move and which modules rest.

What is frozen is a function of the network and the phase alone, so a resumed run freezes what an uninterrupted one
would. A module that rests is in eval mode: no dropout, no stochastic depth, and statistics that stand still.
"""

import math
from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from finetune.config.settings.phases import Phase
from finetune.errors import ConfigError
from finetune.models.adapters import adapter_parameters
from finetune.models.layers import layers
from finetune.models.network import Network


def apply_phase(network: Network, phase: Phase) -> None:
    """Let exactly the parameters move that the phase says, and let all other modules rest.

    Raises:
        ConfigError: Nothing but the head would move where the phase says more, or nothing at all.
    """
    moving = set(moving_parameters(network, phase))
    backbone_moves = any(name.startswith("backbone.") for name in moving)
    if phase.train != "head" and not backbone_moves:
        raise ConfigError(
            f"Phase '{phase.name}' (train: {phase.train}) moves nothing of {network.name} but the head. Use "
            "train: head, or another strategy."
        )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in moving)
    network.resting = tuple(resting_modules(network, phase))
    network.train()


def check_batch_statistics(network: Network, phases: Sequence[Phase], batch_size: int) -> None:
    """Check that BatchNorm's statistics have more than one image to follow where a phase lets them.

    Raises:
        ConfigError: Batches are of one image.
    """
    following = [phase.name for phase in phases if phase.batchnorm == "train" and phase.train != "head"]
    if batch_size == 1 and following and any(isinstance(module, _BatchNorm) for module in network.modules()):
        raise ConfigError(
            f"data.batch_size=1 leaves BatchNorm of {network.name} nothing to measure in phase '{following[0]}'. Set "
            "data.batch_size=2 or more, or strategy.batchnorm=frozen."
        )


def moving_parameters(network: Network, phase: Phase) -> list[str]:
    """Return the full names of the parameters that move in a phase; the head's always do."""
    found = layers(network)
    head = list(found[-1].parameters)
    every = [name for layer in found for name in layer.parameters]
    adapters = set(adapter_parameters(network))
    originals = {name for name in every if name.endswith("parametrizations.weight.original")}
    if phase.train == "head":
        return head
    if phase.train == "adapters":
        return [*sorted(adapters), *head]
    if phase.train == "bias_norm":
        # the biases of all layers and the scales and shifts of all norms have one dimension
        plain = [name for name, value in network.backbone.named_parameters() if value.ndim <= 1]
        return [*(f"backbone.{name}" for name in plain), *head]
    if phase.train == "last":
        count = max(1, math.ceil(phase.fraction * (len(found) - 1)))
        return [name for layer in found[-1 - count :] for name in layer.parameters]
    return every if not originals else [name for name in every if name not in adapters]


def resting_modules(network: Network, phase: Phase) -> list[nn.Module]:
    """Return the modules that stay in eval mode.

    A module with parameters trains if any of them, or of its children's, moves; one without, such as dropout, does as
    its parent. BatchNorm rests everywhere if the phase leaves its statistics alone.
    """
    resting: list[nn.Module] = []

    def visit(module: nn.Module, parent_trains: bool) -> None:
        parameters = list(module.parameters())
        trains = any(value.requires_grad for value in parameters) if parameters else parent_trains
        if isinstance(module, _BatchNorm):
            trains = trains and phase.batchnorm == "train"
        if not trains:
            resting.append(module)
        for child in module.children():
            visit(child, trains or (isinstance(module, _BatchNorm) and parent_trains))

    visit(network.backbone, True)
    return resting
