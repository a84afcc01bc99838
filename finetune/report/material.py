"""What the sections of a report are made from.

It decides which files of a run's folder are told of; what is told is the sections'.
"""

from dataclasses import dataclass, field
from typing import Any

from finetune.evaluation.predictions import Predictions
from finetune.runs import Run


@dataclass(frozen=True)
class Material:
    """The content of a run's folder."""

    run: Run
    record: dict[str, Any]
    config: dict[str, Any]
    document: dict[str, Any]
    splits: dict[str, Predictions]
    history: list[dict[str, float]] = field(default_factory=list)
