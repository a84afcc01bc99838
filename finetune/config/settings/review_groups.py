"""The settings of commands that look at data and at finished runs.

What each means, its unit and what null means stands in conf/, beside its default.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from finetune.config.settings.checked import Checked, in_range


@dataclass(frozen=True)
class AuditSettings(Checked):
    """What an audit looks for."""

    place: ClassVar[str] = "audit."

    output: str
    hash_distance: int = field(metadata=in_range(least=0, most=64, what="a number of bits"))
    similarity: float = field(metadata=in_range(least=-1, most=1, what="a cosine", such="0.9"))
    labels: bool
    folds: int = field(metadata=in_range(least=2))


@dataclass(frozen=True)
class PreviewSettings(Checked):
    """How many images a preview shows, and where."""

    place: ClassVar[str] = "preview."

    images: int = field(metadata=in_range(least=1))
    views: int = field(metadata=in_range(least=1))
    output: str


@dataclass(frozen=True)
class CompareSettings(Checked):
    """Which trials are compared, and what a difference may be."""

    place: ClassVar[str] = "compare."

    sweep: str | None
    gate: str | None
    gate_rule: str


@dataclass(frozen=True)
class EnsembleSettings(Checked):
    """Which models are joined, and how."""

    place: ClassVar[str] = "ensemble."

    sweep: str | None
    cv: str | None
    snapshots: bool
    rounds: int = field(metadata=in_range(least=1))
    alpha: float | None


@dataclass(frozen=True)
class OperatingSettings(Checked):
    """What a threshold is to achieve."""

    place: ClassVar[str] = "operating."

    label: str | None
    min_precision: float | None
    min_recall: float | None
    cost_fp: float | None
    cost_fn: float | None
