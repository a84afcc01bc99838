"""Regularizers (L2-SP, L1): a penalty towards the pretrained weights, and zeros in the head."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from finetune.models.network import Network
from finetune.training.optimizers import decayed_parameters

_HEAD = "head"


@dataclass(frozen=True)
class Regularizer:
    """Penalties beside those of the optimizer.

    Attributes:
        l2_sp: Strength of half the squared distance of weights from the pretrained ones, and of the head's from 0.
        l1: Strength of the sum of the head's absolute weights.
        start: The pretrained weights by name, without the head.
    """

    l2_sp: float = 0.0
    l1: float = 0.0
    start: dict[str, Tensor] = field(default_factory=dict)

    def towards(self, network: Network) -> "Regularizer":
        """Return the same penalties, with a network's weights as they are now as the pretrained ones."""
        if not self.l2_sp:
            return self
        weights = {name: value.detach().clone() for name, value in network.backbone.named_parameters()}
        return replace(self, start={f"backbone.{name}": value for name, value in weights.items()})

    def penalty(self, network: Network) -> Tensor | None:
        """Return what is added to the loss; None for nothing. It is on the weights that weight decay would be on.

        Source: Li et al. 2018, Explicit Inductive Bias for Transfer Learning with Convolutional Networks, section 3
        (L2-SP, one strength for both parts).
        """
        if not self.l2_sp:
            return None
        parts = [
            (weight if name.startswith(f"{_HEAD}.") else weight - self.place(name, weight)).float().square().sum()
            for name, weight in decayed_parameters(network).items()
        ]
        return 0.5 * self.l2_sp * torch.stack(parts).sum()

    def place(self, name: str, weight: Tensor) -> Tensor:
        """Return the pretrained values of a weight, on its device."""
        if self.start[name].device != weight.device:
            self.start[name] = self.start[name].to(weight.device)
        return self.start[name]

    @torch.no_grad()
    def shrink(self, optimizer: Optimizer) -> None:
        """Bring the head's weights nearer to zero after a step: by l1 times the rate of each weight, at most to it.

        Optimizers that divide steps by a mean of squared gradients (Adam and its like) divide this step by the same,
        without which weights that ought to stay zero would leave it at every step.

        Args:
            optimizer: After its step, with the rates of the step.

        Source: Parikh and Boyd 2014, Proximal Algorithms, sections 4.2 and 6.5.2 (soft thresholding); Yun, Lozano and
        Yang 2021, Adaptive Proximal Gradient Methods for Structured Neural Networks, section 3.
        """
        for group in optimizer.param_groups if self.l1 else ():
            if group["name"] == _HEAD:
                for weight in group["params"]:
                    threshold = self.l1 * float(group["lr"]) / divisor(group, optimizer.state.get(weight, {}))
                    weight.copy_(weight.sign() * (weight.abs() - threshold).clamp(min=0))

    def notes(self, network: Network) -> dict[str, float]:
        """Return what there is to log of it at the end of an epoch."""
        found: dict[str, float] = {}
        penalty = self.penalty(network)
        if penalty is not None:
            found["train/l2_sp"] = float(penalty.detach())
        if self.l1:
            found["head/zeros"] = zeros(network.head)
        return found


def divisor(group: Mapping[str, Any], state: Mapping[str, Any]) -> Tensor | float:
    """Return what an optimizer has divided its last step on a weight by; 1 where it divides by nothing that is known.

    Args:
        group: The weight's group.
        state: What the optimizer keeps of the weight.
    """
    squares = state.get("max_exp_avg_sq", state.get("exp_avg_sq"))
    if squares is None or squares.ndim == 0 or "step" not in state or "betas" not in group:
        return 1.0
    correction = 1.0 - float(group["betas"][1]) ** float(state["step"])
    found: Tensor = (squares / correction).sqrt() + float(group["eps"])
    return found


@torch.no_grad()
def zeros(head: nn.Module) -> float:
    """Return the share of a head's weights, biases left out, that are exactly zero."""
    weights = [weight for weight in head.parameters() if weight.ndim > 1]
    return float(sum(torch.eq(weight, 0).sum() for weight in weights)) / max(
        1, sum(weight.numel() for weight in weights)
    )
