"""The cache: written once, checked before it is believed, evicted when unused for longest."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from finetune.data.cache.shards import Entries, key_of
from finetune.data.cache.store import Cache, CacheSpace, parse_size
from finetune.errors import ConfigError


def cache_in(folder: Path, max_size: int = 10**9) -> Cache:
    return Cache(folder / "cache", max_size)


def keys(count: int, start: int = 0) -> list[str]:
    return [key_of("entry", number) for number in range(start, start + count)]


def fill(space: CacheSpace, count: int, start: int = 0) -> np.ndarray:
    values = np.arange(start * 3, (start + count) * 3, dtype=np.float32).reshape(count, 3)
    space.write(keys(count, start), {"values": values})
    return values


def test_entries_of_several_files_are_found_by_key(tmp_path: Path) -> None:
    space = cache_in(tmp_path).space("features", {"weights": "a"})
    values = np.concatenate([fill(space, 4), fill(space, 3, start=4)])
    entries = space.load()
    order = [6, 0, 3, 5, 0]
    assert len(entries) == 7
    assert np.array_equal(entries.take("values", entries.places([keys(7)[row] for row in order])), values[order])


def test_values_are_mapped_not_read(tmp_path: Path) -> None:
    space = cache_in(tmp_path).space("features", {})
    fill(space, 4)
    assert isinstance(space.load().shards[0].arrays["values"], np.memmap)


def test_missing_keys_are_named_once_in_order(tmp_path: Path) -> None:
    space = cache_in(tmp_path).space("features", {})
    fill(space, 2)
    wanted = keys(4)
    assert space.load().missing([wanted[3], wanted[0], wanted[2], wanted[3]]) == [wanted[3], wanted[2]]


def test_another_description_is_another_space(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    fill(cache.space("features", {"weights": "a"}), 2)
    assert len(cache.space("features", {"weights": "b"}).load()) == 0
    assert len(cache.space("pixels", {"weights": "a"}).load()) == 0
    assert len(cache.space("features", {"weights": "a"}).load()) == 2


@pytest.mark.parametrize("where", ["header", "keys", "values", "end"])
def test_a_changed_file_is_deleted_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str) -> None:
    space = cache_in(tmp_path).space("features", {})
    fill(space, 4)
    fill(space, 2, start=4)
    file = next(path for path in space.path.glob("*.safetensors") if b"[4,3]" in path.read_bytes())
    content = bytearray(file.read_bytes())
    place = {"header": 12, "keys": len(content) - 4 * (12 + 16) + 1, "values": len(content) - 30, "end": -1}[where]
    content[place] ^= 1
    file.write_bytes(content)
    entries = space.load()
    assert len(entries) == 2 and entries.missing(keys(6)) == keys(4)
    assert not file.exists() and "damaged" in caplog.text


@pytest.mark.parametrize("length", [0, 5, 60, 200])
def test_a_torn_file_is_not_believed(tmp_path: Path, length: int) -> None:
    space = cache_in(tmp_path).space("features", {})
    fill(space, 20)
    file = next(space.path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:length])
    assert len(space.load()) == 0


def test_no_partial_file_is_left_behind(tmp_path: Path) -> None:
    space = cache_in(tmp_path).space("features", {})
    fill(space, 4)
    assert sorted(path.suffix for path in space.path.iterdir()) == [".json", ".safetensors"]


def compute_once(folder: Path, number: int) -> None:
    space = cache_in(folder).space("features", {"weights": "a"})
    with space.locked():
        if space.load().missing(keys(3)):
            time.sleep(0.2)
            fill(space, 3)
            (folder / f"computed-{number}").touch()


def test_of_several_processes_one_computes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=compute_once, args=(tmp_path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("computed-*"))) == 1


def use_at(space: CacheSpace, seconds: float) -> None:
    os.utime(space.path / "space.json", (seconds, seconds))


def test_the_space_unused_for_longest_goes_first(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    spaces = [cache.space("features", {"weights": name}) for name in "abc"]
    for age, space in enumerate(spaces):
        fill(space, 100)
        use_at(space, 1000 + age)
    spaces[0].load()  # now the one used last
    small = Cache(cache.folder, spaces[0].size() * 2)
    gone = small.evict(keep=spaces[2])
    assert [info.description["weights"] for info in gone] == ["b"]
    assert [len(space.load()) for space in spaces] == [100, 0, 100]


def test_a_space_in_use_is_not_evicted(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    busy, other = cache.space("features", {"a": 1}), cache.space("features", {"a": 2})
    fill(busy, 10)
    fill(other, 10)
    with busy.locked():
        assert cache_in(tmp_path, max_size=1).evict(keep=other) == []
    assert len(busy.load()) == 10


def test_mapped_entries_outlive_their_files(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    space = cache.space("features", {})
    values = fill(space, 4)
    entries = space.load()
    assert cache.delete(cache.infos()[0])
    assert np.array_equal(entries.take("values", entries.places(keys(4))), values)
    assert not space.path.exists()


def test_infos_say_what_is_there(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    fill(cache.space("features", {"model": "resnet18"}), 5)
    (info,) = cache.infos()
    assert (info.kind, info.description["model"], info.entries) == ("features", "resnet18", 5)
    assert info.size == sum(file.stat().st_size for file in (cache.folder / "features" / info.identity).iterdir())


def test_what_cannot_fit_is_refused_before_it_is_computed(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, max_size=2_000_000)
    with pytest.raises(ConfigError, match=r"Features take 3.0 MB, more than cache.max_size=2.0 MB"):
        cache.check_room(3_000_000, cache.space("features", {}), "Features")


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Set cache.dir= to another"):
        Cache(tmp_path / "file" / "cache", 1)


def test_the_folder_is_the_owners_alone(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    fill(cache.space("features", {}), 1)
    assert cache.folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("text", "size"), [("20GB", 20e9), ("500 mb", 5e8), ("1.5k", 1500), (123, 123), ("2T", 2e12)])
def test_sizes_are_read_as_people_write_them(text: str | int, size: float) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["much", "-1GB", "1 GiB", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a size"):
        parse_size(text)


def test_an_empty_space_has_no_entries(tmp_path: Path) -> None:
    entries = cache_in(tmp_path).space("features", {}).load()
    assert isinstance(entries, Entries) and len(entries) == 0


def test_a_damaged_description_is_left_out_of_the_list(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    space = cache.space("features", {})
    fill(space, 1)
    (space.path / "space.json").write_text(json.dumps({"kind": "features"})[:-3])
    assert cache.infos() == []
