"""The layers of a network in order of depth, for freezing and for layer-wise rates."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
    """Stands in for a backbone under the parameter names it had before adapters changed them.

    timm's grouping reads nothing but the names.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the names, with nothing behind them."""
        return ((name, nn.Parameter()) for name in self.names)


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
    matcher: Any = backbone.group_matcher
    groups: Any = group_parameters(_Named(names), matcher(coarse=False), reverse=True)
    return {name: float(groups[name]) for name in names}


def check_cover(network: Network, found: list[Layer]) -> None:
    """Check that every parameter is in exactly one layer."""
    listed = [name for layer in found for name in layer.parameters]
    own = [name for name, _ in network.named_parameters()]
    if sorted(listed) != sorted(own):
        odd = sorted(set(own) ^ set(listed))
        raise AssertionError(f"{len(odd)} parameters of {network.name} are not in exactly one layer (first: {odd[:3]})")
