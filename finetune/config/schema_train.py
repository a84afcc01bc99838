"""The keys that the root configurations may have, as dataclasses that Hydra checks against.

It decides names and types; defaults live in conf/, and what the values mean is left to the parts that receive them.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class HeadConfig:
    """Keys of the group head; a strength is null, a number or cv."""

    kind: str = "linear"
    hidden: int = 512
    dropout: float = 0.0
    standardize: bool = False
    solver: str | None = None
    l2: Any = None
    l1: Any = None
    folds: int = 5
    layers: int = 1
    bidirectional: bool = True
    kernel: int = 3
    rounds: int = 50
    tree_depth: int = 2


@dataclass
class ModelConfig:
    """Keys of the group model."""

    name: str = MISSING
    weights: str = "timm"
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    in_chans: int = 3
    image_size: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None
    grad_checkpointing: bool = False
    depth: float | None = None


@dataclass
class AugmentConfig:
    """Keys of the group augment."""

    enabled: bool = True
    crop_scale: list[float] = MISSING
    crop_ratio: list[float] = MISSING
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    color_jitter: float = 0.0
    rand_augment: str | None = None
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    quarter_turns: bool = False
    rotate: float = 0.0
    blur: float = 0.0
    trivial_augment: bool = False


@dataclass
class OptimizerConfig:
    """Keys of the group optimizer."""

    name: str = MISSING
    lr: float = 5e-4
    weight_decay: float = 0.05
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ScheduleConfig:
    """Keys of the group schedule."""

    kind: str = MISSING
    warmup: float = 0.0
    final: float = 0.0
    cycles: int = 1


@dataclass
class TrainerConfig:
    """Keys of the group trainer."""

    accelerator: str = "auto"
    devices: Any = 1
    strategy: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"
    gradient_clip: float | None = 1.0
    accumulate: int = 1
    compile: bool = False
    channels_last: bool = True
    deterministic: bool = False
    log_every: int = 10
    limit_batches: int | None = None
    threads: int | None = None


@dataclass
class CacheConfig:
    """Keys of the group cache."""

    enabled: bool = True
    dir: str | None = None
    max_size: str = "20GB"


@dataclass
class FeaturesConfig:
    """Keys of the group features."""

    views: int = 1
    test_views: int = 1
    dtype: str = "float32"


@dataclass
class BalanceConfig:
    """Keys of balance: the numbers of policies against imbalance."""

    beta: float = 0.999
    tau: float = 1.0
    views: int = 4


@dataclass
class RegularizeConfig:
    """Keys of regularize: strengths of penalties beside weight decay."""

    l2_sp: float = 0.0
    l1: float = 0.0


@dataclass
class PartsConfig:
    """What a network is trained with; groups driven by a target are open here and checked by what they name."""

    seed: int = 0
    monitor: str = "val/accuracy"
    mode: str = "max"
    imbalance: str = "${data.imbalance}"
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    noise: str = "none"
    regularize: RegularizeConfig = field(default_factory=RegularizeConfig)
    data: dict[str, Any] = field(default_factory=dict)
    model: ModelConfig = field(default_factory=ModelConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    strategy: dict[str, Any] = field(default_factory=dict)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: dict[str, Any] = field(default_factory=dict)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    callbacks: dict[str, Any] = field(default_factory=dict)


@dataclass
class RecipeConfig:
    """Keys of recipe: who chooses what was not typed, and in which time the run is to end."""

    name: str = "none"
    budget: Any = None


@dataclass
class ExplainConfig:
    """Keys of explain: of which images of a run, and how, maps are made at its end."""

    images: int = 8
    method: str = "auto"


@dataclass
class GroupsConfig:
    """Keys of groups: which group columns are looked at."""

    columns: list[str] | None = None
    min_images: int = 30
    intersections: list[Any] = field(default_factory=list)


@dataclass
class OodConfig:
    """Keys of the group ood: how images unlike those of training are told."""

    kind: str = "none"
    accept: float = 0.95
    images: int = 2000
    neighbours: int | None = None
    variance: float | None = None


@dataclass
class TrainConfig(PartsConfig):
    """Keys of the root of the verb train."""

    verb: str = "train"
    name: str | None = None
    runs: str = "runs"
    tags: list[str] = field(default_factory=list)
    group: str | None = None
    resume: str | None = None
    bootstrap: int = 1000
    interpolate: list[Any] = field(default_factory=list)
    calibration: str = "temperature"
    report: bool = True
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    explain: ExplainConfig = field(default_factory=ExplainConfig)
    groups: GroupsConfig = field(default_factory=GroupsConfig)
    ood: OodConfig = field(default_factory=OodConfig)
    logger: dict[str, Any] = field(default_factory=dict)


@dataclass
class BenchmarkConfig(PartsConfig):
    """Keys of the root of the verb benchmark."""

    verb: str = "benchmark"
    phase: str | None = None
    batches: int = 8
    repeats: int = 3
    output: str = "benchmark.json"


@dataclass
class PretrainConfig:
    """Keys of pretrain, of the verb pretrain."""

    epochs: int = 100
    mask_ratio: float = 0.75
    decoder_width: int = 256
    decoder_depth: int = 4
    images: int = 8


@dataclass
class PretrainVerbConfig:
    """Keys of the root of the verb pretrain."""

    verb: str = "pretrain"
    seed: int = 0
    name: str | None = None
    runs: str = "pretrained"
    tags: list[str] = field(default_factory=list)
    group: str | None = None
    monitor: str = "train/loss"
    mode: str = "min"
    resume: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    logger: dict[str, Any] = field(default_factory=dict)


@dataclass
class FeatureVerbConfig:
    """Keys of the root of the verb features."""

    verb: str = "features"
    action: str = "compute"
    spaces: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    seed: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)


# by the name of the root configuration
ROOTS = {
    "train": TrainConfig,
    "features": FeatureVerbConfig,
    "benchmark": BenchmarkConfig,
    "pretrain": PretrainVerbConfig,
}
