"""The settings of each command: its own, and those of the groups that it composes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune.config.settings.checked import FOLLOWS, Checked, Target, in_range
from finetune.config.settings.data_groups import CacheSettings, DataSettings, Imbalance
from finetune.config.settings.phases import Strategy
from finetune.config.settings.review_groups import AuditSettings, PreviewSettings
from finetune.config.settings.run_groups import (
    ExplainSettings,
    GroupSettings,
    LoggerSettings,
    OodSettings,
    RecipeSettings,
)
from finetune.config.settings.search_groups import (
    CrossvalSettings,
    PoolSettings,
    RankSettings,
    SpaceSettings,
    SweepSettings,
)
from finetune.config.settings.training_groups import (
    Augment,
    BalanceSettings,
    HeadSettings,
    LabelNoise,
    ModelSettings,
    OptimizerSettings,
    PretrainSettings,
    RegularizeSettings,
    Schedule,
    TrainerSettings,
    ViewSettings,
)


@dataclass(frozen=True)
class RootSettings(Checked):
    """The settings of a command.

    Attributes:
        verb: The command.
        document: All of the configuration as a run's folder keeps it.
    """

    verb: str
    document: Mapping[str, Any] = field(compare=False, repr=False, metadata={"derived": True})


@dataclass(frozen=True)
class ReadingSettings(RootSettings):
    """Of a command that reads folders of finished or interrupted runs.

    Attributes:
        trust: Whether they may name targets of the user's own.
    """

    trust: bool


@dataclass(frozen=True)
class ImageSettings(RootSettings):
    """Images, and how they pass through a backbone that nothing is trained with."""

    seed: int = field(metadata=in_range(least=0))
    data: DataSettings
    cache: CacheSettings


@dataclass(frozen=True)
class BackboneSettings(ImageSettings):
    """Images and a backbone."""

    model: ModelSettings
    trainer: TrainerSettings


@dataclass(frozen=True)
class PartsSettings(BackboneSettings):
    """What a network is trained with."""

    monitor: str
    mode: Literal["max", "min"] = field(metadata=FOLLOWS)
    imbalance: Imbalance
    balance: BalanceSettings
    label_noise: LabelNoise
    regularize: RegularizeSettings
    head: HeadSettings
    strategy: Strategy
    augment: Augment
    loss: Target
    optimizer: OptimizerSettings
    schedule: Schedule
    features: ViewSettings
    tta_views: int = field(metadata=in_range(least=1))
    callbacks: Mapping[str, Target | None]


@dataclass(frozen=True)
class NamedSettings(ReadingSettings):
    """Where a new run goes, and what it is called."""

    name: str | None
    runs: str
    tags: tuple[str, ...]
    group: str | None
    resume: str | None
    logger: LoggerSettings


@dataclass(frozen=True)
class TrainSettings(NamedSettings, PartsSettings):
    """Of train."""

    bootstrap: int = field(metadata=in_range(least=0))
    wise_ft: tuple[Any, ...]
    calibration: str
    report: bool
    recipe: RecipeSettings
    explain: ExplainSettings
    groups: GroupSettings
    ood: OodSettings


@dataclass(frozen=True)
class SearchingSettings(TrainSettings):
    """Of a command that runs many configurations."""

    sweep: SweepSettings
    space: SpaceSettings
    pool: PoolSettings


@dataclass(frozen=True)
class SweepRootSettings(SearchingSettings):
    """Of sweep."""

    join: str | None
    export: str | None


@dataclass(frozen=True)
class CrossvalRootSettings(SearchingSettings):
    """Of crossval."""

    cv: CrossvalSettings


@dataclass(frozen=True)
class BenchmarkRootSettings(PartsSettings):
    """Of benchmark."""

    phase: str | None
    batches: int = field(metadata=in_range(least=1))
    repeats: int = field(metadata=in_range(least=1))
    output: str


@dataclass(frozen=True)
class PretrainRootSettings(NamedSettings, BackboneSettings):
    """Of pretrain."""

    imbalance: Imbalance
    monitor: str
    mode: Literal["max", "min"] = field(metadata=FOLLOWS)
    augment: Augment
    optimizer: OptimizerSettings
    schedule: Schedule
    pretrain: PretrainSettings


@dataclass(frozen=True)
class FeaturesRootSettings(BackboneSettings):
    """Of features."""

    action: str
    spaces: tuple[str, ...]
    splits: tuple[str, ...]
    imbalance: Imbalance
    augment: Augment
    features: ViewSettings
    tta_views: int = field(metadata=in_range(least=1))


@dataclass(frozen=True)
class RankRootSettings(ImageSettings):
    """Of rank."""

    rank: RankSettings
    imbalance: Imbalance
    trainer: TrainerSettings


@dataclass(frozen=True)
class AuditRootSettings(BackboneSettings):
    """Of audit."""

    audit: AuditSettings


@dataclass(frozen=True)
class PreviewRootSettings(ImageSettings):
    """Of preview."""

    preview: PreviewSettings
    imbalance: Imbalance
    model: ModelSettings
    augment: Augment
