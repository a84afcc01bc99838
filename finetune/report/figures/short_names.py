"""Short class names: which classes a figure can name, and how long their names may be."""

from collections.abc import Sequence

import numpy as np

from finetune.runtime.control_characters import escape_controls

LENGTH = 26
WORST, BEST = 5, 2  # as many together as there are colours


def shorten(name: str, length: int = LENGTH) -> str:
    """Cut the middle out of a long name, since names often differ at their ends."""
    name = escape_controls(name)
    if len(name) <= length:
        return name
    tail = length // 3
    return f"{name[: length - tail - 1]}…{name[-tail:]}"


def outstanding(values: np.ndarray, numbers: Sequence[int]) -> list[int]:
    """Return the classes to name: all where they are few, else the worst and the best; those without a value never.

    Args:
        values: (K,) of all classes, higher is better, NaN where there is none.
        numbers: The classes that may be named.
    """
    known = [number for number in numbers if not np.isnan(values[number])]
    if len(known) <= WORST + BEST:
        return known
    order = sorted(known, key=lambda number: (values[number], number))
    return order[:WORST] + order[-BEST:]
