"""The keys of the verbs that look at finished runs and at data, as dataclasses that Hydra checks against.

It decides names and types, as `schema` does for everything else; defaults live in conf/.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from finetune.config.schema_train import AugmentConfig, CacheConfig, GroupsConfig, ModelConfig, TrainerConfig


@dataclass
class AuditConfig:
    """Keys of audit, of the verb audit."""

    output: str = "audit"
    bits: int = 10
    similarity: float = 0.9
    labels: bool = True
    folds: int = 5


@dataclass
class AuditVerbConfig:
    """Keys of the root of the verb audit."""

    verb: str = "audit"
    seed: int = 0
    audit: AuditConfig = field(default_factory=AuditConfig)
    data: dict[str, Any] = field(default_factory=dict)
    model: ModelConfig = field(default_factory=ModelConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)


@dataclass
class PreviewConfig:
    """Keys of preview, of the verb preview."""

    images: int = 8
    views: int = 6
    output: str = "preview.html"


@dataclass
class PreviewVerbConfig:
    """Keys of the root of the verb preview."""

    verb: str = "preview"
    seed: int = 0
    preview: PreviewConfig = field(default_factory=PreviewConfig)
    data: dict[str, Any] = field(default_factory=dict)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)


@dataclass
class CompareConfig:
    """Keys of compare, of the verb compare."""

    sweep: str | None = None
    gate: str | None = None
    gate_rule: str = "worse"


@dataclass
class CompareVerbConfig:
    """Keys of the root of the verb compare."""

    verb: str = "compare"
    runs: Any = None
    folder: str = "runs"
    top: int = 5
    baseline: str | None = None
    split: str = "test"
    common: bool = False
    bootstrap: int = 1000
    seed: int = 0
    compare: CompareConfig = field(default_factory=CompareConfig)
    output: str = "compare"


@dataclass
class EnsembleConfig:
    """Keys of ensemble, of the verb ensemble."""

    sweep: str | None = None
    cv: str | None = None
    snapshots: bool = False
    rounds: int = 20
    alpha: float | None = None


@dataclass
class EnsembleVerbConfig:
    """Keys of the root of the verb ensemble."""

    verb: str = "ensemble"
    runs: list[str] | None = None
    folder: str = "runs"
    name: str | None = None
    method: str = "mean"
    top: int = 5
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    calibration: str = "temperature"
    bootstrap: int = 1000
    seed: int | None = None
    batch_size: int | None = None
    workers: int | None = None
    device: str = "auto"
    report: bool = True


@dataclass
class RunsConfig:
    """Keys of the root of the verb runs."""

    verb: str = "runs"
    runs: Any = "runs"
    run: str | None = None
    columns: Any = None
    filter: str | None = None
    sort: str | None = None
    limit: int | None = None
    output: str | None = None


@dataclass
class OperatingConfig:
    """Keys of operating, of the verb report."""

    label: str | None = None
    min_precision: float | None = None
    min_recall: float | None = None
    cost_fp: float | None = None
    cost_fn: float | None = None


@dataclass
class ReportVerbConfig:
    """Keys of the root of the verb report."""

    verb: str = "report"
    run: str = "last"
    runs: str = "runs"
    output: str | None = None
    baseline: str | None = None
    operating: OperatingConfig = field(default_factory=OperatingConfig)


@dataclass
class ExplainVerbConfig:
    """Keys of the root of the verb explain."""

    verb: str = "explain"
    run: str = "last"
    runs: str = "runs"
    input: str | None = None
    ids: Any = None
    split: str = "test"
    target: str | None = None
    method: str = "auto"
    neighbours: int = 5
    device: str = "auto"
    output: str = "explain"
    cache: CacheConfig = field(default_factory=CacheConfig)


@dataclass
class EvaluateConfig:
    """Keys of the root of the verb evaluate."""

    verb: str = "evaluate"
    run: str = "last"
    runs: str = "runs"
    split: str = "test"
    data: dict[str, Any] = field(default_factory=dict)
    ood_data: str | None = None
    bootstrap: int = 1000
    batch_size: int | None = None
    workers: int | None = None
    device: str = "auto"
    precision: str | None = None
    views: int | None = None
    seed: int | None = None
    robustness: bool = False
    corruptions: list[str] | None = None
    severities: list[int] = field(default_factory=lambda: [1, 3, 5])
    groups: GroupsConfig = field(default_factory=GroupsConfig)
    report: bool = True


@dataclass
class PredictConfig:
    """Keys of the root of the verb predict."""

    verb: str = "predict"
    run: str = "last"
    runs: str = "runs"
    input: str = MISSING
    output: str | None = None
    top_k: int = 5
    unreadable: str = "error"
    coverage: float | None = None
    target_accuracy: float | None = None
    drift: bool = False
    components: int = 0
    batch_size: int = 64
    workers: int | None = None
    device: str = "auto"
    precision: str | None = None
    views: int | None = None


# by the name of the root configuration
REVIEW_ROOTS: dict[str, Any] = {
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "runs": RunsConfig,
    "audit": AuditVerbConfig,
    "preview": PreviewVerbConfig,
    "compare": CompareVerbConfig,
    "report": ReportVerbConfig,
    "explain": ExplainVerbConfig,
    "ensemble": EnsembleVerbConfig,
}
