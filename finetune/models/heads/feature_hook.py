"""A hook on the features that go into a head, so that they cost no pass of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from finetune.models.heads.sequence_heads import mean_of


@contextmanager
def inputs_of(head: nn.Module, seen: list[Tensor]) -> Iterator[None]:
    """Append what is given to a head (B, F) to a list, an entry for each call; of a sequence the mean of its frames."""

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        given: Tensor = inputs[0].detach()
        seen.append(mean_of(given) if given.ndim == 3 else given)

    handle = head.register_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()
