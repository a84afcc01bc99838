"""Devices, and the cores beside them: where networks are computed, by how many processes, and who reads images.

It waits for torch until a device is asked for, since whoever starts jobs shares out cores without it.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import ConfigError, nearest
from finetune.runtime.allocator import keep_freed_memory

if TYPE_CHECKING:
    import pytorch_lightning as pl
    import torch

# how many cores are a job's own; set by a pool that runs several jobs on a machine
CORES = "FINETUNE_CORES"
_MOST_WORKERS = 8


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def image_workers(device: "torch.device", processes: int = 1) -> int:
    """Return how many processes may read images: the cores that the network leaves idle.

    Without a GPU the network itself is the bottleneck and uses all cores, so batches are made in the same process.

    Args:
        device: Where the network is computed.
        processes: How many compute on devices of this machine, each with workers of its own.
    """
    if device.type != "cuda":
        return 0
    own = int(os.environ.get(CORES, 0)) or cores()
    return max(1, min(_MOST_WORKERS, own // max(1, processes) - 1))


def choose_device(name: str) -> "torch.device":
    """Return the device of that name, with the process set up for it; auto is the first GPU there is, else the CPU.

    Raises:
        ConfigError: The name means no device, or one that this machine lacks.
    """
    import torch

    if name == "auto":
        name = {"cuda": "cuda:0"}.get(best := _best_device(), best)
    try:
        torch.empty(0, device=(device := torch.device(name)))
    except (RuntimeError, AssertionError) as error:
        hint = nearest(name, ("auto", "cpu", "cuda", "mps"))
        raise ConfigError(f"device={name} is not there. Use auto, cpu, or cuda where there is a GPU.{hint}") from error
    return prepare_process(device)


def accelerator_device(accelerator: str) -> "torch.device":
    """Return the device on which one process of an accelerator (cpu, gpu, auto …) computes: the current one."""
    import torch

    return torch.device("cpu" if accelerator == "cpu" else _best_device())


def prepare_process(device: "torch.device") -> "torch.device":
    """Return a device, with the process set up for computing on it."""
    if device.type == "cpu":
        keep_freed_memory()
    return device


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@dataclass(frozen=True)
class DevicePass:
    """Where networks are computed, and by how many processes together.

    Attributes:
        device: Where.
        precision: 32-true, bf16-mixed or 16-mixed.
        rank: This process.
        world_size: Number of processes that share the work.
    """

    device: "torch.device"
    precision: str = "32-true"
    rank: int = 0
    world_size: int = 1

    def context(self) -> AbstractContextManager[Any]:
        """Return the context in which the precision is computed."""
        from finetune.runtime.precision import autocast

        return autocast(self.device, self.precision)

    def agreed(self, value: Any) -> Any:
        """Return the first rank's value on every rank."""
        if self.world_size == 1:
            return value
        import torch

        values = [value]
        torch.distributed.broadcast_object_list(values, 0)
        return values[0]

    @contextmanager
    def alone(self, lock: AbstractContextManager[Any] | None) -> Iterator[None]:
        """Hold a lock, if there is one, on the first rank while all of them work."""
        with lock if lock is not None and self.rank == 0 else nullcontext():
            self.barrier()
            yield
            self.barrier()

    def barrier(self) -> None:
        """Wait for the other ranks."""
        if self.world_size > 1:
            import torch

            torch.distributed.barrier()

    def gathered(self, parts: list[Any]) -> list[Any]:
        """Return the parts of all ranks."""
        if self.world_size == 1:
            return parts
        import torch

        everyone: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(everyone, parts)
        return [part for share in everyone for part in share]


def pass_of(trainer: "pl.Trainer") -> DevicePass:
    """Return where a trainer computes."""
    strategy = trainer.strategy
    return DevicePass(strategy.root_device, str(trainer.precision), trainer.global_rank, trainer.world_size)
