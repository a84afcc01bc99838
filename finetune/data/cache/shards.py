"""Shards: files of keyed arrays that are mapped into memory and checked before they are believed."""

import contextlib
import hashlib
import json
import logging
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

log = logging.getLogger(__name__)

ShardArray = npt.NDArray[Any]
KEYS = "keys"
KEY_BYTES = 16
SUFFIX = ".safetensors"
# safetensors' names of the types that are stored
TYPES = {"F32": np.float32, "F16": np.float16, "U8": np.uint8, "I32": np.int32, "I64": np.int64}


def key_of(*parts: object) -> str:
    """Return the key of what is identified by all the parts together: 32 hexadecimal digits."""
    text = json.dumps([str(part) for part in parts])
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).hexdigest()


@dataclass(frozen=True)
class Shard:
    """Some entries: named arrays whose first axis runs over the keys, in memory or mapped from a file."""

    arrays: Mapping[str, ShardArray]

    @classmethod
    def of(cls, keys: Sequence[str], arrays: Mapping[str, ShardArray]) -> "Shard":
        """Return entries in memory: their keys (N) and arrays (N, ...) by name."""
        return cls({KEYS: pack_keys(keys), **arrays})

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.arrays[KEYS])

    @cached_property
    def keys(self) -> list[str]:
        """The keys of the entries."""
        joined = np.ascontiguousarray(self.arrays[KEYS]).tobytes().hex()
        return [joined[start : start + 2 * KEY_BYTES] for start in range(0, len(joined), 2 * KEY_BYTES)]


class Entries:
    """The entries of a space as they were when it was read; files deleted since then stay readable."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        """Index the shards by key; of several entries of one key the first counts."""
        self.shards = shards
        self.place: dict[str, tuple[int, int]] = {}
        for number, shard in enumerate(shards):
            for row, key in enumerate(shard.keys):
                self.place.setdefault(key, (number, row))

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.place)

    def __contains__(self, key: str) -> bool:
        """Return whether there is an entry of that key."""
        return key in self.place

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Return the keys without an entry, each once, in order."""
        return [key for key in dict.fromkeys(keys) if key not in self.place]

    def places(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return where the entries of the keys are (N, 2), for `take`; KeyError if one has none."""
        return np.array([self.place[key] for key in keys], dtype=np.int64).reshape(-1, 2)

    def take(self, name: str, places: npt.NDArray[np.int64]) -> ShardArray:
        """Return a copy of the entries at some places (N, ...)."""
        numbers = np.unique(places[:, 0])
        if len(numbers) == 1:
            return np.asarray(self.shards[int(numbers[0])].arrays[name][places[:, 1]])
        first = self.shards[int(numbers[0])].arrays[name]
        found = np.empty((len(places), *first.shape[1:]), first.dtype)
        for number in numbers:
            inside = places[:, 0] == number
            found[inside] = self.shards[int(number)].arrays[name][places[inside, 1]]
        return found


def pack_keys(keys: Sequence[str]) -> ShardArray:
    """Return keys as bytes (N, 16)."""
    return np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(len(keys), KEY_BYTES)


def pack(keys: Sequence[str], arrays: Mapping[str, ShardArray]) -> bytes:
    """Return the content of a file of entries: their keys (N) and the arrays (N, ...) by name."""
    return save({KEYS: pack_keys(keys), **{name: np.ascontiguousarray(array) for name, array in arrays.items()}})


def digest_of(content: bytes | mmap.mmap) -> str:
    """Return the digest of a file's content."""
    return hashlib.blake2b(content, digest_size=KEY_BYTES).hexdigest()


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return where the data of a safetensors file begin, and what it says of its arrays."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("its header is longer than the file")
        return 8 + length, json.loads(file.read(length))


def count_entries(path: Path) -> int:
    """Return how many entries a file says it has."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return int(read_header(path)[1][KEYS]["shape"][0])
    return 0


def read_shard(path: Path) -> Shard | None:
    """Return a file's entries, mapped into memory, or None if it is damaged, in which case it is deleted."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if digest_of(content) != path.stem:
                raise ValueError("its content is not what was written")
        start, header = read_header(path)
        return Shard({
            name: np.memmap(path, TYPES[entry["dtype"]], "r", start + entry["data_offsets"][0], tuple(entry["shape"]))
            for name, entry in header.items() if name != "__metadata__"
        })  # fmt: skip
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        log.warning("The cache file %s is damaged (%s): its entries are computed again.", path, error)
        path.unlink(missing_ok=True)
        return None
