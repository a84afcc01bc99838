"""The settings of each command that looks at finished runs: its own, and those of the groups that it composes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune.config.settings.checked import Open, in_range
from finetune.config.settings.data_groups import CacheSettings
from finetune.config.settings.review_groups import CompareSettings, EnsembleSettings, OperatingSettings
from finetune.config.settings.roots import ReadingSettings, RootSettings
from finetune.config.settings.run_groups import GroupSettings


@dataclass(frozen=True)
class RunsSettings(RootSettings):
    """Of runs."""

    runs: Open
    run: str | None
    columns: Open
    filter: str | None
    sort: str | None
    limit: int | None = field(metadata=in_range(least=1))
    output: str | None


@dataclass(frozen=True)
class CompareRootSettings(ReadingSettings):
    """Of compare."""

    runs: Open
    folder: str
    top: int = field(metadata=in_range(least=1))
    baseline: str | None
    split: str
    common: bool
    bootstrap: int = field(metadata=in_range(least=0))
    seed: int = field(metadata=in_range(least=0))
    compare: CompareSettings
    output: str


@dataclass(frozen=True)
class EnsembleRootSettings(ReadingSettings):
    """Of ensemble."""

    runs: tuple[str, ...] | None
    folder: str
    name: str | None
    method: Literal["mean", "logits", "vote", "greedy", "stacking", "soup", "greedy_soup", "wise_ft"]
    top: int = field(metadata=in_range(least=1))
    ensemble: EnsembleSettings
    calibration: str
    bootstrap: int = field(metadata=in_range(least=0))
    seed: int | None = field(metadata=in_range(least=0))
    batch_size: int | None = field(metadata=in_range(least=1))
    workers: int | None = field(metadata=in_range(least=0))
    device: str
    report: bool


@dataclass(frozen=True)
class ReportSettings(ReadingSettings):
    """Of report."""

    run: str
    runs: str
    output: str | None
    baseline: str | None
    operating: OperatingSettings


@dataclass(frozen=True)
class ExplainRootSettings(ReadingSettings):
    """Of explain."""

    run: str
    runs: str
    input: str | None
    ids: Open
    split: str
    target: str | None
    method: str
    neighbours: int = field(metadata=in_range(least=0))
    device: str
    output: str
    cache: CacheSettings


@dataclass(frozen=True)
class RerunSettings(ReadingSettings):
    """Of a command that lets a stored run predict: where null, as the run itself."""

    run: str
    runs: str
    workers: int | None = field(metadata=in_range(least=0))
    device: str
    precision: str | None
    views: int | None = field(metadata=in_range(least=1))


@dataclass(frozen=True)
class EvaluateSettings(RerunSettings):
    """Of evaluate.

    Attributes:
        data: Other images: what replaces arguments of the run's own data source, by name.
    """

    split: str
    data: Mapping[str, Any]
    ood_data: str | None
    bootstrap: int = field(metadata=in_range(least=0))
    batch_size: int | None = field(metadata=in_range(least=1))
    seed: int | None = field(metadata=in_range(least=0))
    robustness: bool
    corruptions: tuple[str, ...] | None
    severities: tuple[int, ...]
    groups: GroupSettings
    report: bool


@dataclass(frozen=True)
class PredictSettings(RerunSettings):
    """Of predict."""

    input: str
    output: str | None
    top_k: int = field(metadata=in_range(least=1))
    unreadable: str
    coverage: float | None
    target_accuracy: float | None
    drift: bool
    components: int = field(metadata=in_range(least=0))
    batch_size: int = field(metadata=in_range(least=1))
