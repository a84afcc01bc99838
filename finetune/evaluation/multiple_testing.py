"""Holm's correction of p-values for multiple testing."""

from collections.abc import Sequence


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in their order.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    order = sorted(range(len(values)), key=lambda place: values[place])
    corrected = [0.0] * len(values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = highest
    return corrected
