"""The settings of searches, cross-validations, rankings, and the pools that run their jobs.

What each means, its unit and what null means stands in conf/, beside its default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from finetune.config.settings.checked import Checked, Open, in_range, typed
from finetune.config.settings.data_groups import FoldSettings
from finetune.errors import ConfigError, nearest


@dataclass(frozen=True)
class PoolSettings(Checked):
    """What all pools have."""

    place: ClassVar[str] = "pool."

    kind: str
    devices_per_job: int = field(metadata=in_range(least=0))
    time_limit: float | None = field(metadata=in_range(above=0, what="a number of seconds"))
    grace: float = field(metadata=in_range(above=0, what="a number of seconds"))

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "PoolSettings":
        """Return the settings of the kind of pool that a configuration names.

        Raises:
            ConfigError: There is no such kind, or it has no such setting.
        """
        kind = content.get("kind")
        if kind not in POOLS:
            raise ConfigError(
                f"pool.kind={kind} is not known. Use one of {', '.join(POOLS)}.{nearest(str(kind), POOLS)}"
            )
        known = [*POOLS[kind].__dataclass_fields__]
        for name in content:
            if name not in known:
                raise ConfigError(f"Nothing reads the key 'pool.{name}'.{nearest(name, known)}")
        return typed(POOLS[kind], content)


@dataclass(frozen=True)
class LocalSettings(PoolSettings):
    """The devices of this machine, and who shares them."""

    devices: Open
    jobs_per_device: int = field(metadata=in_range(least=1))
    threads: int | None = field(metadata=in_range(least=1))


@dataclass(frozen=True)
class SlurmSettings(PoolSettings):
    """What is asked of Slurm."""

    jobs: int = field(metadata=in_range(least=1))
    partition: str | None
    cpus: int = field(metadata=in_range(least=1))
    minutes: int = field(metadata=in_range(least=1))
    memory_gb: float | None
    setup: tuple[str, ...]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class RaySettings(PoolSettings):
    """What is asked of Ray."""

    address: str
    jobs: int = field(metadata=in_range(least=1))
    cpus: int = field(metadata=in_range(least=1))
    resources: Mapping[str, float]


POOLS: dict[str, type[PoolSettings]] = {"local": LocalSettings, "slurm": SlurmSettings, "ray": RaySettings}


@dataclass(frozen=True)
class SweepSettings(Checked):
    """What is searched for, how, and until when."""

    place: ClassVar[str] = "sweep."

    name: str | None
    folder: str
    trials: int = field(metadata=in_range(least=1))
    timeout: float | None = field(metadata=in_range(above=0, what="a number of seconds"))
    trial_timeout: float | None = field(metadata=in_range(above=0, what="a number of seconds"))
    on_failure: Literal["continue", "stop", "retry"]
    retries: int = field(metadata=in_range(least=0))
    metric: Open
    direction: Open
    budget: Mapping[str, float | None]
    sampler: str
    sampler_options: Mapping[str, Any]
    pruner: str
    pruner_options: Mapping[str, Any]
    seed: int = field(metadata=in_range(least=0))
    storage: str | None
    in_process: str
    page: bool


@dataclass(frozen=True)
class SpaceSettings(Checked):
    """What varies: expressions by setting, and conditions by setting."""

    place: ClassVar[str] = "space."

    params: Mapping[str, Any]
    when: Mapping[str, Any]


@dataclass(frozen=True)
class CrossvalSettings(FoldSettings):
    """How images are dealt out, where folds run, and how much each counts in their ensemble."""

    in_process: str
    weights: Literal["skill", "equal"]
    inner: int = field(metadata=in_range(least=2))


@dataclass(frozen=True)
class RankSettings(Checked):
    """Which backbones are compared, and how."""

    place: ClassVar[str] = "rank."

    models: Open
    weights: Literal["download", "local", "none"]
    weights_dir: str | None
    max_params: float | None
    max_latency: float | None
    folds: int = field(metadata=in_range(least=2))
    batch_size: int = field(metadata=in_range(least=1))
    repeats: int = field(metadata=in_range(least=1))
    output: str
