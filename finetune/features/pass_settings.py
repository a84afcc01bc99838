"""Where features are computed: the device, its precision, and the processes that share the work.

It decides how processes agree and wait for each other; what they compute is the callers'.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch

from finetune.data.cache.store import CacheSpace


@dataclass(frozen=True)
class DevicePass:
    """Where features are computed, and by how many processes together.

    Attributes:
        device: Where the backbone runs.
        precision: 32-true, bf16-mixed or 16-mixed.
        context: Makes the context in which that precision is computed.
        rank: This process.
        world_size: Number of processes that share the work.
    """

    device: torch.device
    precision: str = "32-true"
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    rank: int = 0
    world_size: int = 1

    def agreed(self, value: Any) -> Any:
        """Return the first rank's value on every rank."""
        if self.world_size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, 0)
        return values[0]

    @contextmanager
    def alone(self, space: CacheSpace | None) -> Iterator[None]:
        """Keep other runs from filling a space while the ranks of this one do."""
        with space.locked() if space is not None and self.rank == 0 else nullcontext():
            self.barrier()
            yield
            self.barrier()

    def barrier(self) -> None:
        """Wait for the other ranks."""
        if self.world_size > 1:
            torch.distributed.barrier()

    def gathered(self, parts: list[Any]) -> list[Any]:
        """Return the parts of all ranks."""
        if self.world_size == 1:
            return parts
        everyone: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(everyone, parts)
        return [part for share in everyone for part in share]


def pass_of(trainer: pl.Trainer) -> DevicePass:
    """Return where a trainer computes."""
    return DevicePass(
        trainer.strategy.root_device,
        str(trainer.precision),
        trainer.precision_plugin.forward_context,
        trainer.global_rank,
        trainer.world_size,
    )
