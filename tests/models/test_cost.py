"""What a network costs: parameters, latency and memory, measured without changing it."""

import copy
import time

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from finetune.models.adapters import add_lora
from finetune.models.cost import blank_images, cost, peak_memory, stopwatch
from finetune.models.network import Network, build_network

CPU = torch.device("cpu")


def build(name: str, size: int = 64) -> Network:
    return build_network(name, num_classes=3, weights="none", image_size=size)


def profiled_peak(network: Network, count: int) -> int:
    """Return the most bytes that torch's own profiler saw in use at a time."""
    images = blank_images(network, count, CPU)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        network.eval().to(memory_format=torch.channels_last)(images)
    alive = peak = 0
    for event in found.profiler.kineto_results.events():
        alive += event.nbytes() if event.name() == "[memory]" else 0
        peak = max(peak, alive)
    return peak + images.nbytes


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_peak_memory_is_what_the_profiler_sees_and_the_weights(name: str) -> None:
    network = build(name)
    weights = sum(value.nbytes for value in network.state_dict().values())
    found = peak_memory(network, 4, device=CPU) - weights
    expected = profiled_peak(network, 4)  # it sees what an operation uses inside itself, such as attention, as well
    assert 0.8 * expected <= found <= 1.01 * expected
    assert peak_memory(network, 8, device=CPU) - weights == pytest.approx(2 * found, rel=0.02)


def test_latency_grows_with_the_image() -> None:
    small, large = (stopwatch(build("test_resnet", size), 1, device=CPU) for size in (32, 256))
    turns = [(small(), large()) for _ in range(5)]
    assert min(pair[0] for pair in turns) < min(pair[1] for pair in turns)


def test_cost_counts_the_finished_model_and_is_quick() -> None:
    network = build("test_vit")
    plain = sum(value.numel() for value in network.parameters())
    add_lora(network.backbone, rank=2, alpha=2.0)
    began = time.perf_counter()
    found = cost(network, device=CPU, precision="16-mixed")
    assert time.perf_counter() - began < 5  # about half a second, on a machine that does nothing else
    assert found["parameters"] == plain and found["latency_ms"] > 0 and 1 <= found["passes"] <= 30
    assert (found["device"], found["precision"], found["threads"]) == ("cpu", "32-true", torch.get_num_threads())


def test_measuring_leaves_the_network_as_it_is() -> None:
    network = build("test_efficientnet").train()
    before = copy.deepcopy(network.state_dict())
    cost(network, device=CPU, precision="32-true")
    peak_memory(network, 2, device=CPU)
    assert all(module.training for module in network.modules()) and torch.is_grad_enabled()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
