"""Reads what W&B's client wrote for an offline run: the transaction log, the only place of its config and summary.

The log is a sequence of blocks of 32 KiB, with records split over them as LevelDB does; each record is a protobuf
message of the client's own definition. A log that was cut off is read up to there.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb
from wandb.proto import wandb_internal_pb2 as protocol

MAGIC = b":W&B"
FILE_HEADER, BLOCK, CHUNK_HEADER = 7, 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class LoggedArtifact:
    """An artifact as logged: its name, its aliases and where its files wait to be uploaded, by name."""

    name: str
    type: str
    aliases: list[str]
    files: dict[str, Path]


@dataclass
class LoggedRun:
    """What the log of one W&B run says; `exit_code` is None where the run was not closed."""

    folder: Path
    id: str = ""
    name: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[LoggedArtifact] = field(default_factory=list)
    exit_code: int | None = None

    def column(self, name: str) -> list[Any]:
        """Return the values of a key in the order they were logged."""
        return [row[name] for row in self.history if name in row]


def read_logs(run_folder: Path) -> list[LoggedRun]:
    """Return the W&B runs logged below a run folder, oldest first.

    The client of this process is ended before: `finish` returns while the log is still on its way to the disk.
    """
    wandb.teardown()
    return [read_log(file) for file in sorted(Path(run_folder).glob("wandb/*run-*/run-*.wandb"))]


def read_log(file: Path) -> LoggedRun:
    """Return what one transaction log says."""
    found = LoggedRun(file.parent)
    for record in records(file.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found.id, found.name, found.project = run.run_id, run.display_name, run.project
            found.group, found.job_type, found.tags = run.run_group, run.job_type, list(run.tags)
            _update(found.config, run.config)
        elif kind == "config":
            _update(found.config, record.config)
        elif kind == "history":
            found.history.append({_key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            _update(found.summary, record.summary)
        elif kind == "artifact":
            artifact = record.artifact
            files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
            found.artifacts.append(LoggedArtifact(artifact.name, artifact.type, list(artifact.aliases), files))
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    found.config.pop("_wandb", None)
    return found


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def _update(target: dict[str, Any], change: Any) -> None:
    for item in change.update:
        target[_key(item)] = json.loads(item.value_json)
    for item in change.remove:
        target.pop(_key(item), None)


def records(log: bytes) -> Iterator[Any]:
    """Yield the protobuf records of a log."""
    assert log.startswith(MAGIC), f"not a log of W&B's: {log[:8]!r}"
    for content in _contents(log):
        record = protocol.Record()  # type: ignore[attr-defined]
        record.ParseFromString(content)
        yield record


def _contents(log: bytes) -> Iterator[bytes]:
    position, parts = FILE_HEADER, b""
    while position + CHUNK_HEADER <= len(log):
        left = BLOCK - position % BLOCK
        if left < CHUNK_HEADER:  # the rest of a block that holds no header is padding
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", log, position)
        chunk = log[position + CHUNK_HEADER : position + CHUNK_HEADER + size]
        if kind not in (FULL, FIRST, MIDDLE, LAST) or len(chunk) < size:
            return
        position += CHUNK_HEADER + size
        parts = chunk if kind in (FULL, FIRST) else parts + chunk
        if kind in (FULL, LAST):
            yield parts
