"""The precisions that networks compute in, and the contexts that make them do so."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from finetune.errors import ConfigError, nearest

PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def choose_precision(name: str, device: torch.device) -> str:
    """Return the precision to compute in; half precision (16-mixed) is full precision on the CPU.

    Raises:
        ConfigError: The precision is not known.
    """
    if name not in PRECISIONS:
        raise ConfigError(
            f"precision={name} is not known. Use one of {', '.join(PRECISIONS)}.{nearest(name, PRECISIONS)}"
        )
    return "32-true" if name == "16-mixed" and device.type == "cpu" else name


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context in which a network computes in a precision."""
    dtype = PRECISIONS[choose_precision(precision, device)]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
