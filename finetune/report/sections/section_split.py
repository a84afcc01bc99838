"""Which split the sections of a page are about."""

from finetune.evaluation.predictions import Predictions
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
