"""The cache on disk: spaces of entries, written once by whoever comes first, and evicted when unused for longest."""

import contextlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from finetune.data.cache.shards import SUFFIX, Entries, ShardArray, count_entries, digest_of, key_of, pack, read_shard
from finetune.errors import ConfigError
from finetune.runs.run import replacing, write_json
from finetune.runtime.format import format_size

log = logging.getLogger(__name__)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_size(text: str | int) -> int:
    """Return the number of bytes that a text such as 20GB or 500MB means.

    Raises:
        ConfigError: It means none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", str(text).upper())
    if match is None:
        raise ConfigError(f"cache.max_size={text} is not a size. Type something like 20GB or 500MB.")
    return int(float(match[1]) * _UNITS[match[2]])


@dataclass(frozen=True)
class SpaceInfo:
    """What is in a space, for people: its kind, what made it, its size in bytes, entries and last use (seconds)."""

    kind: str
    identity: str
    description: Mapping[str, Any]
    size: int
    entries: int
    used: float


class CacheSpace:
    """The entries that were made in the same way, such as features by the same weights from the same transform.

    Each file is named after the digest of its content, so that a torn or changed one is found out when it is read.
    """

    def __init__(self, cache: "Cache", kind: str, description: Mapping[str, Any]) -> None:
        """Describe a space; nothing is written until entries are."""
        self.cache = cache
        self.kind = kind
        self.description = dict(description)
        self.identity = key_of(json.dumps(self.description, sort_keys=True, default=str))
        self.path = cache.folder / kind / self.identity

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time fill the space; the others wait and then find what it has written."""
        with self.cache.lock(self.identity):
            yield

    def load(self) -> Entries:
        """Return what is there; a damaged file is deleted with a warning, so that its entries are made again."""
        files = sorted(self.path.glob(f"*{SUFFIX}"))
        with ThreadPoolExecutor(4) as pool:
            shards = [shard for shard in pool.map(read_shard, files) if shard is not None]
        if shards:
            with contextlib.suppress(OSError):
                os.utime(self.path / "space.json")
        return Entries(shards)

    def write(self, keys: Sequence[str], arrays: Mapping[str, ShardArray]) -> None:
        """Add entries as one file, whole or not at all.

        Args:
            keys: Of the entries (N).
            arrays: Their values (N, ...), by name.
        """
        if not (self.path / "space.json").is_file():
            write_json(self.path / "space.json", {"kind": self.kind, **self.description})
        content = pack(keys, arrays)
        with replacing(self.path / f"{digest_of(content)}{SUFFIX}") as temporary:
            temporary.write_bytes(content)

    def size(self) -> int:
        """Return how many bytes the space takes."""
        return folder_size(self.path)


class Cache:
    """A folder of spaces, of which those unused for longest go when it grows too large."""

    def __init__(self, folder: Path, max_size: int) -> None:
        """Use a folder, which is made, readable by its owner alone; `max_size` is in bytes.

        Raises:
            ConfigError: The folder cannot be written.
        """
        self.folder = folder
        self.max_size = max_size
        try:
            if not folder.is_dir():
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.mkdir(mode=0o700, exist_ok=True)
            (folder / "locks").mkdir(exist_ok=True)
            writable = os.access(folder / "locks", os.W_OK)
        except OSError:
            writable = False
        if not writable:
            raise ConfigError(f"The cache folder {folder} cannot be written. Set cache.dir= to another.")

    def space(self, kind: str, description: Mapping[str, Any]) -> CacheSpace:
        """Return the space of what was made as described; the description decides its identity."""
        return CacheSpace(self, kind, description)

    def lock(self, identity: str, timeout: float = -1) -> FileLock:
        """Return the lock of a space; it lies outside the space, which may be deleted."""
        return FileLock(self.folder / "locks" / f"{identity}.lock", timeout=timeout)

    def check_room(self, size: int, space: CacheSpace, what: str, setting: str = "features.dtype=float16") -> None:
        """Check that so many more bytes fit.

        Args:
            size: Of what is to be added.
            space: Where it is to be added.
            what: What it is, for the error.
            setting: What may be set to need less, for the error.

        Raises:
            ConfigError: They do not, whatever else were evicted.
        """
        needed = size + space.size()
        if needed > self.max_size:
            raise ConfigError(
                f"{what} take {format_size(needed)}, more than cache.max_size={format_size(self.max_size)}. "
                f"Raise it, or set {setting}."
            )
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise ConfigError(
                f"{what} take {format_size(size)}, but {self.folder} has {format_size(free)} free. Set cache.dir= to "
                "another disk."
            )

    def infos(self) -> list[SpaceInfo]:
        """Return what is in the cache, least recently used first."""
        found = []
        for file in self.folder.glob("*/*/space.json"):
            with contextlib.suppress(OSError, ValueError):
                described = json.loads(file.read_text())
                shards = list(file.parent.glob(f"*{SUFFIX}"))
                found.append(SpaceInfo(
                    file.parent.parent.name, file.parent.name, described, folder_size(file.parent),
                    sum(count_entries(path) for path in shards), file.stat().st_mtime,
                ))  # fmt: skip
        return sorted(found, key=lambda info: info.used)

    def evict(self, keep: CacheSpace) -> list[SpaceInfo]:
        """Delete the spaces unused for longest until the rest fits, and return them; `keep` and those in use stay."""
        infos = self.infos()
        total = sum(info.size for info in infos)
        gone = []
        for info in infos:
            if total <= self.max_size:
                break
            if info.identity != keep.identity and self.delete(info):
                total -= info.size
                gone.append(info)
        if gone:
            log.info("Evicted %s from the cache.", format_size(sum(info.size for info in gone)))
        return gone

    def delete(self, info: SpaceInfo) -> bool:
        """Delete a space, and return whether it was not in use."""
        path = self.folder / info.kind / info.identity
        try:
            with self.lock(info.identity, timeout=0):
                doomed = path.with_name(f".{uuid.uuid4().hex}")
                path.rename(doomed)
        except (Timeout, FileNotFoundError):
            return False
        shutil.rmtree(doomed, ignore_errors=True)
        return True


def folder_size(path: Path) -> int:
    """Return the size of the files of a folder in bytes; files that go meanwhile count nothing."""
    total = 0
    for file in path.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total
