"""Which split a section tells of, and how numbers are written in its tables and sentences.

It decides what stands where a number is not defined; the numbers are `evaluation`'s.
"""

import math

from finetune.evaluation.predictions import Predictions
from finetune.report.run_data import RunData

_SPLITS = ("test", "val")
NAMES = {"test": "test", "val": "validation"}


def section_split(material: RunData) -> tuple[str, Predictions] | None:
    """Return the name and the predictions of the first of test and validation that has any; None without."""
    for split in _SPLITS:
        predictions = material.splits.get(split)
        if predictions is not None and predictions.num:
            return split, predictions
    return None


def known(value: float | None) -> float | None:
    """Return a number that is defined, else None, which a table shows as a dash."""
    return value if value is not None and math.isfinite(value) else None


def format_score(value: float | None, digits: int = 3) -> str:
    """Write a number in a sentence; a dash where it is not defined."""
    return "–" if known(value) is None else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None) -> str | None:
    """Write an interval for a table; None where it is not defined."""
    return None if known(low) is None or known(high) is None else f"{low:.3f} – {high:.3f}"


def format_count(number: int, word: str = "image", plural: str = "") -> str:
    """Write a number of things: 1 image, 2 images."""
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def listed(names: tuple[str, ...] | list[str], limit: int = 10) -> str:
    """Write names in a row, and how many are left out."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest:,} more" if rest > 0 else "")
