"""Latency and memory of backbones on this machine, measured so that they can be compared with each other."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from finetune.models.cost import peak_memory, stopwatch
from finetune.models.network import Network
from finetune.models.truncation import count_parameters
from finetune.training.throughput.throughput import interleave

# passes of one image in a turn, after one that brings the weights into the processor's caches
PASSES = 3


@dataclass(frozen=True)
class Footprint:
    """What a backbone costs.

    Attributes:
        parameters: Their number, without a head.
        latency_ms: Median milliseconds of a pass of one image.
        latency_batch_ms: The same per image of a batch.
        peak_memory: Bytes of weights and activations at the height of a pass of the batch.
    """

    parameters: int
    latency_ms: float
    latency_batch_ms: float
    peak_memory: int


def footprints(
    networks: Mapping[str, Network], *, batch: int, repeats: int, device: torch.device, precision: str
) -> dict[str, Footprint | Exception]:
    """Return what each network costs, or the error that it raised; the others are measured all the same.

    The networks take turns, so that what else the machine does meets all of them.

    Args:
        networks: By name.
        batch: Images in a batch.
        repeats: Turns.
        device: Where.
        precision: 32-true, bf16-mixed or 16-mixed.
    """
    found: dict[str, Footprint | Exception] = {}
    measures: dict[str, Callable[[], float]] = {}
    memory: dict[str, int] = {}
    for name, network in networks.items():
        try:
            memory[name] = peak_memory(network, batch, device=device, precision=precision)
            single = stopwatch(network, 1, device=device, precision=precision)
            measures[f"{name} 1"] = burst(single)
            measures[f"{name} N"] = stopwatch(network, batch, device=device, precision=precision)
        except Exception as error:  # noqa: BLE001 - one backbone's failure, such as too little memory, is its own
            found[name] = error
    times = interleave({key: value for key, value in measures.items() if key.split(" ")[0] not in found}, repeats)
    for name in networks.keys() - found.keys():
        single_ms, batch_ms = (statistics.median(times[f"{name} {what}"]) for what in "1N")
        found[name] = Footprint(count_parameters(networks[name].backbone), single_ms, batch_ms, memory[name])
    return found


def burst(measure: Callable[[], float]) -> Callable[[], float]:
    """Return a measure that is the median of a few, after one that does not count."""

    def several() -> float:
        measure()
        return statistics.median(measure() for _ in range(PASSES))

    return several
