"""What is known of image files that have not changed since they were last read: digests, and values of many bits."""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from finetune.data.cache.shards import key_of

log = logging.getLogger(__name__)

# a file may change twice within the resolution of its times, so one that is younger when it is read is not believed
RACY_NS = 2 * 10**9
_NO_SPANS: Mapping[str, str] = MappingProxyType({})
BATCH = 500
TABLE = """
    CREATE TABLE IF NOT EXISTS images (path TEXT PRIMARY KEY, state TEXT, digest TEXT, span TEXT, seal TEXT)
    WITHOUT ROWID
"""


class KnownFile(NamedTuple):
    """What is known of a file.

    Attributes:
        digest: Of its content.
        span: Its values, as JSON, where they are of more than 8 bits; else empty.
    """

    digest: str
    span: str = ""


class KnownFiles:
    """Digests of readable image files, by path, size, inode, and times of change, in a SQLite file.

    A row carries a digest of itself, so that a damaged one is not believed. Losing the file costs reading the images
    once more, so trouble with it is logged and otherwise ignored.
    """

    def __init__(self, path: Path) -> None:
        """Use the SQLite file at `path`, which is made when something is noted."""
        self.path = path

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """Give the database, made anew where it is damaged."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as database:
            database.execute(TABLE)
            yield database

    def digests(self, paths: Sequence[str]) -> dict[str, str]:
        """Return the digests of those files that are as they were when they were noted."""
        return {path: found.digest for path, found in self.lookup(paths).items()}

    def lookup(self, paths: Sequence[str]) -> dict[str, KnownFile]:
        """Return what is known of those files that are as they were when they were noted."""
        if not self.path.is_file():
            return {}
        found: dict[str, KnownFile] = {}
        try:
            with self.opened() as database:
                for start in range(0, len(paths), BATCH):
                    found |= unchanged(database, paths[start : start + BATCH])
        except sqlite3.DatabaseError as error:
            log.warning("%s is damaged (%s): all images are read again.", self.path, error)
            self.path.unlink(missing_ok=True)
            return {}
        return found

    def note(self, digests: Mapping[str, str], states: Mapping[str, str], spans: Mapping[str, str] = _NO_SPANS) -> None:
        """Remember the digests of files.

        Args:
            digests: By path.
            states: What `file_state` said of each path before it was read; a path without one is not remembered.
            spans: Values of more than 8 bits, as JSON, by path.
        """
        known = {path: KnownFile(digest, spans.get(path, "")) for path, digest in digests.items() if states.get(path)}
        rows = [(path, states[path], *each, key_of(path, states[path], *each)) for path, each in known.items()]
        try:
            with self.opened() as database, database:
                database.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            log.warning("What was read cannot be noted in %s (%s): the next run reads it again.", self.path, error)


def unchanged(database: sqlite3.Connection, paths: Sequence[str]) -> dict[str, KnownFile]:
    """Return what is noted of those paths whose files have not changed."""
    marks = ",".join("?" * len(paths))
    rows = database.execute(f"SELECT path, state, digest, span, seal FROM images WHERE path IN ({marks})", list(paths))
    return {
        path: KnownFile(digest, span)
        for path, state, digest, span, seal in rows
        if seal == key_of(path, state, digest, span) and state == file_state(path)
    }


def file_state(path: str) -> str:
    """Return what changes when a file does; nothing if it is not there, or so young that it may change unnoticed."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    newest = max(found.st_mtime_ns, found.st_ctime_ns)
    if newest > time.time_ns() - RACY_NS:
        return ""
    return f"{found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"
