"""From settings to a pool: what is wrong is told in one line."""

from pathlib import Path

import pytest

from finetune.config.compose import register
from finetune.errors import ConfigError
from finetune.search.multirun.grid_run import pool_settings
from finetune.search.pools.local_pool import LocalPool
from finetune.search.pools.pool_factory import build_pool

register()


def test_local_pool_has_the_typed_slots(tmp_path: Path) -> None:
    pool = build_pool(pool_settings(None, ["pool.devices=cpu", "pool.jobs_per_device=3", "pool.grace=5"]), tmp_path)
    assert isinstance(pool, LocalPool)
    assert (pool.size, pool.free(), pool.grace) == (3, 3, 5.0)
    pool.close()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("pool=slrm", "slurm"),
        ("pool.devises=2", r"'pool\.devices'"),
        ("+pool.devises=2", r"'devices'"),
        ("pool.jobs_per_device=0", "1 or more"),
        ("pool.jobs_per_device=two", "two"),
        ("pool.grace=0", "above 0"),
        ("pool.time_limit=-1", "above 0"),
        ("pool.kind=locl", "'local'"),
        ("pool.devices=1,2", "Ambiguous"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_pool(pool_settings(None, [override]), tmp_path)


@pytest.mark.parametrize(("kind", "told"), [("slurm", "login node|slurm\\]")])
def test_a_cluster_that_is_not_there_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, told: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=told):
        build_pool(pool_settings(None, [f"pool={kind}"]), tmp_path)
