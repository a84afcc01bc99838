"""Signs of life of a pool, as its jobs on other machines see them."""

import time
from pathlib import Path

from finetune.search.pools.heartbeat import Owner, OwnerWatch


def test_an_owner_is_there_until_it_is_silent_for_too_long(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "owner")
    watch = OwnerWatch(owner.file, owner.name, silence=0.2)
    assert not watch.is_gone()
    time.sleep(0.3)
    owner._next = 0.0
    owner.beat()
    assert not watch.is_gone()
    time.sleep(0.3)
    assert watch.is_gone()


def test_a_later_pool_in_the_same_folder_takes_over_at_once(tmp_path: Path) -> None:
    first = Owner(tmp_path / "owner")
    watch = OwnerWatch(first.file, first.name)
    second = Owner(tmp_path / "owner")
    assert watch.is_gone()
    assert not OwnerWatch(second.file, second.name).is_gone()


def test_a_file_that_cannot_be_read_for_a_moment_is_no_end(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "owner")
    watch = OwnerWatch(owner.file, owner.name)
    owner.file.unlink()
    assert not watch.is_gone()
