"""The layers of a network in order of depth, for freezing and for layer-wise rates.

It decides which parameter belongs to which layer, from timm's own grouping; what is done with layers is the caller's.
"""

from dataclasses import dataclass

from timm.models import group_parameters
from torch import nn

from finetune.models.network import Network


@dataclass(frozen=True)
class Layer:
    """Parameters of the same depth.

    Attributes:
        name: backbone.0, backbone.1, ... from the input on, and head.
        parameters: Their full names in the network.
    """

    name: str
    parameters: tuple[str, ...]


class _Named(nn.Module):
    """Stands in for a backbone whose adapters have changed parameter names, under the names it had before."""


def plain_name(name: str) -> str:
    """Return the name that a parameter, or an adapter's parameter, had before adapters were added."""
    if "parametrizations." not in name:
        return name
    module, _, rest = name.partition("parametrizations.")
    return f"{module}{rest.split('.')[0]}"


def layers(network: Network) -> list[Layer]:
    """Return the layers from the input to the head; every parameter is in exactly one.

    The head is our own classifier; what timm keeps beside its classifier, such as a last norm, is the backbone's.
    """
    backbone = network.backbone
    names: dict[str, list[str]] = {}
    for name, _ in backbone.named_parameters():
        names.setdefault(plain_name(name), []).append(f"backbone.{name}")
    depth = depths(backbone, list(names))
    order = sorted(set(depth.values()))
    found = []
    for index, level in enumerate(order):
        members = [full for plain, fulls in names.items() if depth[plain] == level for full in fulls]
        found.append(Layer(f"backbone.{index}", tuple(members)))
    head = Layer("head", tuple(f"head.{name}" for name, _ in network.head.named_parameters()))
    check_cover(network, [*found, head])
    return [*found, head]


def depths(backbone: nn.Module, names: list[str]) -> dict[str, float]:
    """Return the depth of each parameter by timm's grouping; all are of one depth where a model has none."""
    if not hasattr(backbone, "group_matcher"):
        return dict.fromkeys(names, 0.0)
    stand_in = _stand_in(backbone, names)
    groups = group_parameters(stand_in, backbone.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    return {name: float(groups[name]) for name in names}


def _stand_in(backbone: nn.Module, names: list[str]) -> nn.Module:
    """Return an object whose named_parameters have the given names, since timm's grouping reads nothing else."""
    stand_in = _Named()
    stand_in.named_parameters = lambda: [(name, None) for name in names]  # type: ignore[method-assign,assignment,return-value]
    return stand_in


def check_cover(network: Network, found: list[Layer]) -> None:
    """Check that every parameter is in exactly one layer."""
    listed = [name for layer in found for name in layer.parameters]
    own = [name for name, _ in network.named_parameters()]
    if sorted(listed) != sorted(own):
        odd = sorted(set(own) ^ set(listed))
        raise AssertionError(f"{len(odd)} parameters of {network.name} are not in exactly one layer (first: {odd[:3]})")
