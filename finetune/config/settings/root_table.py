"""The settings of each command by the name of its root configuration."""

import finetune.config.settings.targets  # noqa: F401 - which settings targets have
from finetune.config.settings.review_roots import (
    CompareRootSettings,
    EnsembleRootSettings,
    EvaluateSettings,
    ExplainRootSettings,
    PredictSettings,
    ReportSettings,
    RunsSettings,
)
from finetune.config.settings.roots import (
    AuditRootSettings,
    BenchmarkRootSettings,
    CrossvalRootSettings,
    FeaturesRootSettings,
    PretrainRootSettings,
    PreviewRootSettings,
    RankRootSettings,
    RootSettings,
    SweepRootSettings,
    TrainSettings,
)

# by the name of the root configuration
ROOTS: dict[str, type[RootSettings]] = {
    "train": TrainSettings,
    "sweep": SweepRootSettings,
    "crossval": CrossvalRootSettings,
    "pretrain": PretrainRootSettings,
    "benchmark": BenchmarkRootSettings,
    "features": FeaturesRootSettings,
    "rank": RankRootSettings,
    "audit": AuditRootSettings,
    "preview": PreviewRootSettings,
    "evaluate": EvaluateSettings,
    "predict": PredictSettings,
    "runs": RunsSettings,
    "compare": CompareRootSettings,
    "report": ReportSettings,
    "explain": ExplainRootSettings,
    "ensemble": EnsembleRootSettings,
}
