"""The features that go into a head, seen on their way, so that they cost no pass of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def inputs_of(head: nn.Module, seen: list[Tensor]) -> Iterator[None]:
    """Append what is given to a head (B, F) to a list, an entry for each call."""

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0].detach())

    handle = head.register_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()
