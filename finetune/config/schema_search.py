"""The keys of searches and of the pools that run them, as dataclasses that Hydra checks against.

It decides names and types, as `schema` does for everything else; defaults live in conf/.
"""

from dataclasses import dataclass, field
from typing import Any

from finetune.config.schema_train import CacheConfig, TrainConfig, TrainerConfig


@dataclass
class LocalPoolConfig:
    """Keys of pool=local."""

    kind: str = "local"
    devices: Any = "auto"
    devices_per_job: int = 1
    jobs_per_device: int = 1
    threads: int | None = None
    time_limit: float | None = None
    grace: float = 30.0


@dataclass
class SlurmPoolConfig:
    """Keys of pool=slurm."""

    kind: str = "slurm"
    jobs: int = 4
    partition: str | None = None
    devices_per_job: int = 1
    cpus: int = 4
    minutes: int = 240
    memory_gb: float | None = None
    setup: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    time_limit: float | None = None
    grace: float = 30.0


@dataclass
class RayPoolConfig:
    """Keys of pool=ray."""

    kind: str = "ray"
    address: str = "auto"
    jobs: int = 4
    devices_per_job: int = 1
    cpus: int = 4
    resources: dict[str, float] = field(default_factory=dict)
    time_limit: float | None = None
    grace: float = 30.0


@dataclass
class MultirunConfig:
    """Keys of what -m itself reads; all others are those of its jobs."""

    defaults: list[Any] = field(default_factory=lambda: ["_self_", {"pool": "local"}])
    pool: dict[str, Any] = field(default_factory=dict)


@dataclass
class SweepConfig:
    """Keys of the group sweep."""

    name: str | None = None
    folder: str = "sweeps"
    trials: int = 20
    timeout: float | None = None
    trial_timeout: float | None = None
    on_failure: str = "continue"
    retries: int = 1
    metric: Any = None
    direction: Any = None
    budget: dict[str, float | None] = field(default_factory=dict)
    sampler: str = "tpe"
    sampler_options: dict[str, Any] = field(default_factory=dict)
    pruner: str = "none"
    pruner_options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    storage: str | None = None
    in_process: str = "auto"
    page: bool = True


@dataclass
class SpaceConfig:
    """Keys of the group space: expressions by setting, and conditions by setting."""

    params: dict[str, Any] = field(default_factory=dict)
    when: dict[str, Any] = field(default_factory=dict)


@dataclass
class SweepVerbConfig(TrainConfig):
    """Keys of the root of the verb sweep: those of a run, and the search's own."""

    verb: str = "sweep"
    sweep: SweepConfig = field(default_factory=SweepConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    pool: Any = None
    join: str | None = None
    export: str | None = None


@dataclass
class CrossvalConfig:
    """Keys of the group cv."""

    kind: str = "stratified"
    folds: int = 5
    repeats: int = 1
    seed: int = 0
    in_process: str = "auto"
    weights: str = "skill"
    inner: int = 3


@dataclass
class CrossvalVerbConfig(TrainConfig):
    """Keys of the root of the verb crossval: those of a run, its folds, and a search within each."""

    verb: str = "crossval"
    cv: CrossvalConfig = field(default_factory=CrossvalConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    pool: Any = None


@dataclass
class RankConfig:
    """Keys of rank, of the verb rank."""

    models: Any = None
    weights: str = "download"
    weights_dir: str | None = None
    max_params: float | None = None
    max_latency: float | None = None
    folds: int = 5
    batch_size: int = 16
    repeats: int = 5
    output: str = "rank"


@dataclass
class RankVerbConfig:
    """Keys of the root of the verb rank."""

    verb: str = "rank"
    seed: int = 0
    rank: RankConfig = field(default_factory=RankConfig)
    data: dict[str, Any] = field(default_factory=dict)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)


# by the name of the root configuration; that of -m has no file, since it is no verb
SEARCH_ROOTS = {
    "sweep": SweepVerbConfig,
    "crossval": CrossvalVerbConfig,
    "multirun": MultirunConfig,
    "rank": RankVerbConfig,
}
# by the option of the group pool
POOLS = {"local": LocalPoolConfig, "slurm": SlurmPoolConfig, "ray": RayPoolConfig}
