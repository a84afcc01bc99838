"""Which split the sections of a page are about."""

from collections.abc import Callable
from functools import wraps

from finetune.evaluation.predictions import Predictions
from finetune.report.html.blocks import Section
from finetune.report.run_data import RunData

_SPLITS = ("test", "val")
NAMES = {"test": "test", "val": "validation"}


def section_split(run_data: RunData) -> tuple[str, Predictions] | None:
    """Return the name and the predictions of the first of test and validation that has any; None without."""
    for split in _SPLITS:
        predictions = run_data.splits.get(split)
        if predictions is not None and predictions.num:
            return split, predictions
    return None


def about_split(make: Callable[[RunData, str, Predictions], Section | None]) -> Callable[[RunData], Section | None]:
    """Return a section of a run from one of its split and that split's predictions; None where there are none."""

    @wraps(make)
    def section(run_data: RunData) -> Section | None:
        told = section_split(run_data)
        return None if told is None else make(run_data, *told)

    return section
