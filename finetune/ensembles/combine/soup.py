"""Model soups: one network whose weights are a mean of several, and interpolation between two networks."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune.errors import ConfigError
from finetune.models.input_spec import check_value_ranges
from finetune.models.network import Network

_Score = tuple[float, float]
_Judge = Callable[[Network], _Score]
_STEPS = 10  # shares that are tried on the way from one network to another


@dataclass(frozen=True)
class WeightAverage:
    """A network of averaged weights.

    Attributes:
        network: With those weights.
        weights: What each member counts (M,), summing to 1.
        tried: What else was tried: weights and scores.
    """

    network: Network
    weights: tuple[float, ...]
    tried: tuple[tuple[tuple[float, ...], _Score], ...] = ()


def check_same_architecture(networks: Sequence[Network], names: Sequence[str]) -> None:
    """Check that networks differ in nothing but their weights.

    Raises:
        ConfigError: They are of different kinds, or one is an ensemble.
    """
    first = networks[0]
    check_value_ranges([network.spec for network in networks])
    for network, name in zip(networks, names, strict=True):
        if "ensemble" in network.options:
            raise ConfigError(f"{name} is an ensemble, and its weights cannot be averaged. Use method=mean.")
        same = (network.name, network.options["in_chans"], network.options["depth"], network.options["head"]["kind"])
        mine = (first.name, first.options["in_chans"], first.options["depth"], first.options["head"]["kind"])
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        if same != mine or shapes != {key: value.shape for key, value in first.state_dict().items()}:
            raise ConfigError(
                f"{name} is {network.name} and {names[0]} is {first.name}, or their heads differ: only weights of the "
                "same architecture can be averaged. Use method=mean, which joins any networks."
            )


def average_networks(networks: Sequence[Network], weights: Sequence[float]) -> Network:
    """Return a network whose weights and buffers are a weighted mean; whole numbers are those of the first.

    Args:
        networks: Of one architecture (M).
        weights: What each counts (M,), summing to 1.

    Source: Wortsman et al. 2022, Model soups, section 2; for two networks Wortsman et al. 2022, Robust fine-tuning of
        zero-shot models, section 2.
    """
    result = copy.deepcopy(networks[0])
    states = [network.state_dict() for network in networks]
    mixed: dict[str, Tensor] = {}
    for name, value in states[0].items():
        if value.is_floating_point():
            total = sum(weight * state[name].double() for weight, state in zip(weights, states, strict=True))
            assert isinstance(total, Tensor)
            mixed[name] = total.to(value.dtype)
        else:
            mixed[name] = value
    result.load_state_dict(mixed)
    return result.eval()


def equal_buffers(networks: Sequence[Network]) -> bool:
    """Return whether all statistics that networks keep are the same, so that their mean is right for mean weights."""
    buffers: list[dict[str, Any]] = [
        {name: value for name, value in network.named_buffers() if value.is_floating_point()} for network in networks
    ]
    return all(torch.equal(value, other[name]) for other in buffers[1:] for name, value in buffers[0].items())


def uniform_soup(networks: Sequence[Network], refreshed: Callable[[Network], Network]) -> WeightAverage:
    """Return the mean of all networks."""
    share = 1 / len(networks)
    return WeightAverage(refreshed(average_networks(networks, [share] * len(networks))), (share,) * len(networks))


def greedy_soup(networks: Sequence[Network], judge: _Judge, refreshed: Callable[[Network], Network]) -> WeightAverage:
    """Return the mean of those networks that make it no worse on validation, the best ones first.

    Args:
        networks: Of one architecture.
        judge: Scores a network; higher is better.
        refreshed: Gives a mean the statistics that go with its weights.

    Source: Wortsman et al. 2022, Model soups, recipe 1.
    """
    alone = [judge(network) for network in networks]
    order = sorted(range(len(networks)), key=lambda number: alone[number], reverse=True)
    chosen, best, kept = [order[0]], alone[order[0]], networks[order[0]]
    tried = [(equal_weights([number], len(networks)), alone[number]) for number in order]
    for number in order[1:]:
        weights = equal_weights([*chosen, number], len(networks))
        mixed = refreshed(average_networks(networks, weights))
        score = judge(mixed)
        tried.append((weights, score))
        if score >= best:
            chosen, best, kept = [*chosen, number], score, mixed
    return WeightAverage(kept, equal_weights(chosen, len(networks)), tuple(tried))


def interpolate_networks(
    start: Network, end: Network, judge: _Judge, refreshed: Callable[[Network], Network], alpha: float | None
) -> WeightAverage:
    """Return the network on the straight way from one to another that does best on validation.

    Args:
        start: Such as the probe, whose backbone is the pretrained one.
        end: Such as the fine-tuned network.
        judge: Scores a network; higher is better.
        refreshed: Gives a mean the statistics that go with its weights.
        alpha: How far to go, in [0, 1]; None tries steps of a tenth, both ends among them.

    Source: Wortsman et al. 2022, Robust fine-tuning of zero-shot models, section 2 (WiSE-FT).
    """
    places = [alpha] if alpha is not None else [step / _STEPS for step in range(_STEPS + 1)]
    tried: list[tuple[tuple[float, ...], _Score]] = []
    best: tuple[_Score, Network, float] | None = None
    for place in places:
        ends = {0.0: start, 1.0: end}
        mixed = ends[place] if place in ends else refreshed(average_networks([start, end], [1 - place, place]))
        score = judge(mixed)
        tried.append(((1 - place, place), score))
        if best is None or score > best[0]:
            best = score, mixed, place
    assert best is not None
    return WeightAverage(best[1], (1 - best[2], best[2]), tuple(tried))


def equal_weights(chosen: Sequence[int], number: int) -> tuple[float, ...]:
    """Return equal weights (M,) of the chosen of so many members."""
    return tuple(1 / len(chosen) if member in chosen else 0.0 for member in range(number))
