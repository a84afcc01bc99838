"""Averaged weights are averages, what cannot be averaged is refused, and searches keep what validation prefers."""

import copy

import pytest
import torch

from finetune.ensembles.combine.soup import (
    average_networks,
    check_same_architecture,
    equal_buffers,
    greedy_soup,
    interpolate_networks,
    uniform_soup,
)
from finetune.errors import ConfigError
from finetune.models.network import Network, build_network


def network(seed: int, name: str = "test_vit") -> Network:
    torch.manual_seed(seed)
    return build_network(name, num_classes=2, weights="none", image_size=32).eval()


def same(network: Network) -> Network:
    return network


def distance(network: Network, target: Network) -> float:
    pairs = zip(network.state_dict().values(), target.state_dict().values(), strict=True)
    return float(sum((one.float() - two.float()).square().sum() for one, two in pairs))


def test_a_soup_is_the_weighted_mean_of_all_weights() -> None:
    first, second = network(0, "test_resnet"), network(1, "test_resnet")
    mixed = average_networks([first, second], [0.25, 0.75]).state_dict()
    for name, value in first.state_dict().items():
        other = second.state_dict()[name]
        wanted = 0.25 * value + 0.75 * other if value.is_floating_point() else value
        assert torch.allclose(mixed[name], wanted, atol=1e-6)
    assert uniform_soup([first, second], same).weights == (0.5, 0.5)
    assert equal_buffers([first, second])
    next(iter(second.buffers())).add_(1.0)
    assert not equal_buffers([first, second])


def test_the_way_between_two_networks_has_both_ends_and_its_best_place_is_found() -> None:
    start, end = network(0), network(1)
    target = average_networks([start, end], [0.7, 0.3])
    found = interpolate_networks(start, end, lambda each: (-distance(each, target), 0.0), same, None)
    assert found.weights == pytest.approx((0.7, 0.3))
    assert len(found.tried) == 11
    assert interpolate_networks(start, end, lambda each: (-distance(each, start), 0.0), same, None).network is start
    given = interpolate_networks(start, end, lambda each: (0.0, 0.0), same, 0.5)
    assert given.weights == (0.5, 0.5) and len(given.tried) == 1


def test_a_greedy_soup_takes_what_does_not_make_it_worse() -> None:
    start, near, far = network(0), network(0), network(5)
    for value in near.parameters():
        value.data += 1e-3
    target = average_networks([start, near], [0.5, 0.5])
    found = greedy_soup([far, start, near], lambda each: (-distance(each, target), 0.0), same)
    assert found.weights == (0.0, 0.5, 0.5)
    assert distance(found.network, target) < 1e-6


def test_only_networks_of_one_kind_are_averaged() -> None:
    first = network(0)
    with pytest.raises(ConfigError, match="same architecture"):
        check_same_architecture([first, network(0, "test_resnet")], ["a", "b"])
    with pytest.raises(ConfigError, match="is an ensemble"):
        joined = copy.deepcopy(first)
        joined.options = {"ensemble": {}}
        check_same_architecture([first, joined], ["a", "b"])
