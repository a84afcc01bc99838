"""Cost of a network: parameters, latency per image and peak memory of a pass."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from finetune.models.adapters import merge
from finetune.models.network import Network, eval_mode
from finetune.models.truncation import count_parameters
from finetune.runtime.precision import autocast, choose_precision

# a latency is the median of so many passes, or of as many as begin within the seconds
PASSES, SECONDS = 30, 0.5


def blank_images(network: Network, count: int, device: torch.device) -> Tensor:
    """Return so many images (B, C, H, W) of the size that a network wants, laid out as in evaluation."""
    spec = network.spec
    images = torch.zeros(count, spec.channels, spec.height, spec.width, device=device)
    return images.contiguous(memory_format=torch.channels_last)


@contextmanager
def _evaluating(network: Network, device: torch.device, precision: str) -> Iterator[None]:
    """Let a network compute as in evaluation; the mode of its modules is put back."""
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad(), autocast(device, precision), eval_mode(network):
        yield


def stopwatch(network: Network, count: int, *, device: torch.device, precision: str = "32-true") -> Callable[[], float]:
    """Return a function that passes a batch through a network and returns the milliseconds per image or sequence.

    Args:
        network: Computes as in evaluation, with channels last; it is moved to the device.
        count: Images, or sequences, in the batch.
        device: Where.
        precision: 32-true, bf16-mixed or 16-mixed.
    """
    inputs: tuple[Tensor, ...] = (blank_images(network, count * (network.frames or 1), device),)
    if network.frames is not None:  # so many sequences of the greatest length
        inputs = (*inputs, torch.full((count,), network.frames, device=device))

    def measure() -> float:
        with _evaluating(network, device, precision):
            _wait(device)
            started = time.perf_counter()
            network(*inputs)
            _wait(device)
            return (time.perf_counter() - started) * 1000 / count

    measure()  # warms up
    return measure


def _wait(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cost(network: Network, *, device: torch.device, precision: str) -> dict[str, Any]:
    """Return what a finished network costs, as it is written into a run's metrics.json.

    The latency is the median time of a pass of one image of zeros, or of one sequence of them, without decoding, on the
    device and in the precision of evaluation and with the threads that the process has. Measuring takes about half a
    second, and what else the machine does has a part in it. Adapters are merged into the weights, as they are in the
    finished model.
    """
    precision = choose_precision(precision, device)
    network = merge(network)
    measure = stopwatch(network, 1, device=device, precision=precision)
    began, times = time.perf_counter(), [measure()]
    while len(times) < PASSES and time.perf_counter() - began < SECONDS:
        times.append(measure())
    return {
        "parameters": count_parameters(network), "latency_ms": statistics.median(times), "passes": len(times),
        "device": device.type, "precision": precision, "threads": torch.get_num_threads(),
    }  # fmt: skip


def peak_memory(network: Network, count: int, *, device: torch.device, precision: str = "32-true") -> int:
    """Return the bytes that weights and activations take at the height of a pass of a batch in evaluation.

    On a GPU it is what its allocator reports. On the CPU the tensors that are alive after each operation are added up;
    what an operation uses inside itself is not seen.

    Args:
        network: It is moved to the device.
        count: Images in the batch.
        device: Where.
        precision: 32-true, bf16-mixed or 16-mixed.
    """
    images = blank_images(network, count, device)
    with _evaluating(network, device, precision):
        weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            network(images)
            return int(weights + images.nbytes + torch.cuda.max_memory_allocated(device) - before)
        with LiveBytes() as live:
            network(images)
    return int(weights + images.nbytes + live.peak)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the tensors that operations have made and that are still alive; `peak` is the most there were."""

    def __init__(self) -> None:
        """Start with nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.sizes: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation, and look at what is alive afterwards."""
        known = {id_of(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and id_of(value) not in known:  # else it is a view of what was there
                reference = StorageWeakRef(value.untyped_storage())  # type: ignore[no-untyped-call]
                self.sizes[reference.cdata] = (reference, value.untyped_storage().nbytes())
        self.sizes = {key: entry for key, entry in self.sizes.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.sizes.values()))
        return result


def id_of(value: Tensor) -> int:
    """Return what identifies the memory of a tensor."""
    return int(value.untyped_storage()._cdata)
