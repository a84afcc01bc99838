"""From the settings of a pool to the pool."""

from pathlib import Path

from finetune.config.settings.search_groups import LocalSettings, PoolSettings, RaySettings, SlurmSettings
from finetune.search.pools.jobs import Pool
from finetune.search.pools.local_pool import LocalPool
from finetune.search.pools.ray_pool import RayPool
from finetune.search.pools.slots import build_slots
from finetune.search.pools.slurm_pool import SlurmPool


def build_pool(settings: PoolSettings, folder: Path) -> Pool:
    """Return the pool that the settings of the group `pool` describe.

    Args:
        settings: The settings, which are those of a kind of pool.
        folder: Where a pool of several machines keeps its own files.

    Raises:
        ConfigError: The devices are not there.
    """
    if isinstance(settings, SlurmSettings):
        return SlurmPool(settings, folder / "slurm")
    if isinstance(settings, RaySettings):
        return RayPool(settings)
    assert isinstance(settings, LocalSettings)
    slots = build_slots(
        settings.devices,
        devices_per_job=settings.devices_per_job,
        jobs_per_device=settings.jobs_per_device,
        threads=settings.threads,
    )
    return LocalPool(slots, grace=settings.grace)
