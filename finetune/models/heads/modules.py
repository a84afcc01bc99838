"""Head modules, put together from a specification."""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from finetune.errors import ConfigError, nearest
from finetune.models.heads.boosting import BoostedTrees
from finetune.models.heads.sequence_heads import AttentionPool, MeanPool, Recurrent, TemporalConvolution

_Kind = Literal["linear", "mlp", "cosine", "boosted", "mean_pool", "attention", "gru", "lstm", "tcn"]
DEEPEST = 8  # of boosted trees, which are stored whole
SEQUENCE_KINDS = ("mean_pool", "attention", "gru", "lstm", "tcn")
_KINDS = ("linear", "mlp", "cosine", "boosted", *SEQUENCE_KINDS)


@dataclass(frozen=True)
class HeadSpec:
    """The classifier on top of the pooled features.

    Attributes:
        kind: linear, mlp with one hidden layer, or cosine of the angle between features and a vector per class; for
            sequences of frames mean_pool, attention, gru, lstm or tcn (temporal convolution), each with a linear layer.
        hidden: Width of the hidden layer of an mlp, of attention's scores, of a gru, an lstm or a tcn.
        dropout: Probability of dropping a feature in training.
        standardize: Whether each feature is brought to mean 0 and deviation 1 over the training images first.
        layers: Layers of a gru, an lstm or a tcn.
        bidirectional: Whether a gru or an lstm reads a sequence from both ends.
        kernel: Frames that a layer of a tcn sees at once, an odd number.
        rounds: Trees of a boosted head.
        tree_depth: Decisions on the way to a leaf of each.
    """

    kind: _Kind = "linear"
    hidden: int = 512
    dropout: float = 0.0
    standardize: bool = False
    layers: int = 1
    bidirectional: bool = True
    kernel: int = 3
    rounds: int = 50
    tree_depth: int = 2


class Standardize(nn.Module):
    """Features (B, F) minus their mean, divided by their deviation; both are set once and never trained."""

    def __init__(self, num_features: int) -> None:
        """Make a layer that changes nothing until its statistics are set."""
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take over means and deviations (F,)."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, features: Tensor) -> Tensor:
        """Return standardised features (B, F)."""
        return (features - self.mean) / self.std


class CosineLinear(nn.Module):
    """Cosines between features (B, F) and a vector for each class, times a learnt scale: logits (B, K).

    Source: Gidaris and Komodakis 2018, Dynamic Few-Shot Visual Learning without Forgetting, section 3.2.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        """Make random class vectors and the scale 10 of the paper."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, num_features))
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        nn.init.trunc_normal_(self.weight, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K)."""
        cosines = functional.linear(functional.normalize(features, dim=1), functional.normalize(self.weight, dim=1))
        return self.log_scale.exp() * cosines


def build_head(spec: HeadSpec, num_features: int, num_classes: int) -> nn.Sequential:
    """Return the head; a linear last layer starts near zero, so that the first predictions are almost uniform.

    Raises:
        ConfigError: The specification makes no sense.
    """
    check_spec(spec)
    layers: list[nn.Module] = [Standardize(num_features)] if spec.standardize else []
    width = num_features
    if spec.kind in SEQUENCE_KINDS:
        summary = build_summary(spec, num_features)
        layers.append(summary)
        width = summary.width
    if spec.kind == "mlp":
        layers += [nn.Linear(num_features, spec.hidden), nn.GELU()]
        width = spec.hidden
    layers.append(nn.Dropout(spec.dropout))
    if spec.kind == "boosted":
        return nn.Sequential(*layers, BoostedTrees(num_classes, rounds=spec.rounds, depth=spec.tree_depth))
    if spec.kind == "cosine":
        return nn.Sequential(*layers, CosineLinear(num_features, num_classes))
    last = nn.Linear(width, num_classes)
    nn.init.trunc_normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def build_summary(spec: HeadSpec, num_features: int) -> MeanPool | AttentionPool | Recurrent | TemporalConvolution:
    """Return what makes one vector of a sequence."""
    if spec.kind == "mean_pool":
        return MeanPool(num_features)
    if spec.kind == "attention":
        return AttentionPool(num_features, spec.hidden)
    if spec.kind == "tcn":
        return TemporalConvolution(
            num_features, spec.hidden, layers=spec.layers, kernel=spec.kernel, dropout=spec.dropout
        )
    return Recurrent(
        spec.kind, num_features, spec.hidden, layers=spec.layers, bidirectional=spec.bidirectional,
        dropout=spec.dropout,
    )  # fmt: skip


def check_spec(spec: HeadSpec) -> None:
    """Check a head's kind and numbers.

    Raises:
        ConfigError: One makes no sense.
    """
    if spec.kind not in _KINDS:
        raise ConfigError(
            f"head.kind={spec.kind} is not known. Use {', '.join(_KINDS[:-1])} or {_KINDS[-1]}."
            f"{nearest(str(spec.kind), _KINDS)}"
        )
    if not 0 <= spec.dropout < 1:
        raise ConfigError(f"head.dropout={spec.dropout} is not a probability from 0 to below 1.")
    for name in ("hidden", "layers", "kernel", "rounds"):
        if getattr(spec, name) < 1:
            raise ConfigError(f"head.{name}={getattr(spec, name)} must be a whole number of 1 or more.")
    if not 1 <= spec.tree_depth <= DEEPEST:
        raise ConfigError(f"head.tree_depth={spec.tree_depth} must be from 1 to {DEEPEST}; boosting wants small trees.")
    if spec.kernel % 2 == 0:
        raise ConfigError(f"head.kernel={spec.kernel} must be odd, so that a frame is in the middle. Use 3 or 5.")
    if spec.kind in SEQUENCE_KINDS and spec.standardize:
        raise ConfigError(
            f"head.standardize=true is for features of single images. Set it to false with head.kind={spec.kind}."
        )


def standardize_layer(head: nn.Sequential) -> Standardize | None:
    """Return the layer that standardises a head's features, or None where it has none."""
    first = head[0]
    return first if isinstance(first, Standardize) else None


@torch.no_grad()
def fold_standardize(head: nn.Sequential) -> nn.Sequential:
    """Return a head with the same outputs whose first linear layer does the standardising as well.

    The given head is not changed. A cosine head keeps the layer, since its features are normalised after it.
    """
    folded = copy.deepcopy(head)
    layer = standardize_layer(folded)
    linear = next((module for module in folded if isinstance(module, nn.Linear)), None)
    if layer is None or linear is None:
        return folded
    weight = linear.weight.double() / layer.std.double()
    bias = linear.bias.double() - weight @ layer.mean.double()
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
    return nn.Sequential(*list(folded)[1:])  # a slice would keep the layers' numbers
