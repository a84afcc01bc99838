"""What metrics.json keeps of a calibration, read without anything heavy."""

from collections.abc import Mapping
from typing import Any


def checkpoint_scores(document: Mapping[str, Any], split: str) -> dict[str, float | None]:
    """Return the scores of a split in metrics.json as the best epoch had them, before calibration.

    Searches compare trials by these: on the split that a calibration was fitted on, scores after it are flattered.
    """
    scores = {name: entry["value"] for name, entry in document.get(split, {}).items()}
    changes = document.get("calibration", {}).get(split, {})
    return {**scores, **{name: change["before"] for name, change in changes.items()}}
