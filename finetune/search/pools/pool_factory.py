"""From the settings of a pool to the pool.

It decides which kind of pool is made and checks its numbers; what the settings mean is left to the pools.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from finetune.config.schema_search import POOLS
from finetune.errors import ConfigError, nearest
from finetune.search.pools.jobs import Pool
from finetune.search.pools.local_pool import LocalPool
from finetune.search.pools.ray_pool import RayPool, RaySettings
from finetune.search.pools.slots import build_slots
from finetune.search.pools.slurm_pool import SlurmPool, SlurmSettings

Settings = Mapping[str, Any]


def build_pool(settings: Settings, folder: Path) -> Pool:
    """Return the pool that the settings of the group `pool` describe.

    Args:
        settings: The settings.
        folder: Where a pool of several machines keeps its own files.

    Raises:
        ConfigError: There is no such kind, a number makes no sense, or the devices are not there.
    """
    kind = settings["kind"]
    if kind not in _KINDS:
        raise ConfigError(f"pool.kind={kind} is not known. Use one of {', '.join(_KINDS)}.{nearest(kind, _KINDS)}")
    known = [entry.name for entry in fields(POOLS[kind])]
    for name in settings:
        if name not in known:
            raise ConfigError(f"Nothing reads the key 'pool.{name}'.{nearest(name, known)}")
    for name in ("time_limit", "grace"):
        value = settings[name]
        if value is not None and value <= 0:
            raise ConfigError(f"pool.{name}={value} must be a number of seconds above 0.")
    return _KINDS[kind](settings, folder)


def local_pool(settings: Settings, folder: Path) -> LocalPool:
    """Return the pool of this machine."""
    slots = build_slots(
        settings["devices"],
        devices_per_job=settings["devices_per_job"],
        jobs_per_device=settings["jobs_per_device"],
        threads=settings["threads"],
    )
    return LocalPool(slots, grace=settings["grace"])


def slurm_pool(settings: Settings, folder: Path) -> SlurmPool:
    """Return the pool of a Slurm cluster."""
    wanted = {entry.name: settings[entry.name] for entry in fields(SlurmSettings)}
    return SlurmPool(SlurmSettings(**{**wanted, "setup": tuple(settings["setup"])}), folder / "slurm")


def ray_pool(settings: Settings, folder: Path) -> RayPool:
    """Return the pool of a Ray cluster."""
    return RayPool(RaySettings(**{entry.name: settings[entry.name] for entry in fields(RaySettings)}))


_KINDS: dict[str, Callable[[Settings, Path], Pool]] = {"local": local_pool, "slurm": slurm_pool, "ray": ray_pool}
