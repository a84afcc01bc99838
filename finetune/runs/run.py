"""The run folder: where each file of a run lies, what state the run is in, and how a run is found again."""

import json
import math
import numbers
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from finetune.config.aliases import rename_config
from finetune.config.trust import check_stored
from finetune.errors import ConfigError, RunError, nearest
from finetune.runs.leftovers import PARTIAL, remove_leftovers
from finetune.runs.stored_files import read_json, read_stored_yaml
from finetune.runtime.provenance import git_state, process, process_start, versions

RECORD = "run.json"
RUNNING, FINISHED, FAILED, INTERRUPTED, PRUNED = "running", "finished", "failed", "interrupted", "pruned"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, which replaces it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{PARTIAL}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file, or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON; a number that is not finite becomes null."""
    write_atomic(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, numbers.Real) and not isinstance(content, numbers.Integral):
        return float(content) if math.isfinite(content) else None
    if isinstance(content, numbers.Integral) and not isinstance(content, bool):
        return int(content)
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


class Run:
    """A run's folder.

    Attributes:
        path: The folder, absolute.
        config_file: The resolved configuration.
        record_file: What identifies the run and says how it stands.
        history_file: The values of each epoch.
        metrics_file: The final metrics with their intervals.
        table_file: Which images are in which split.
        reference_file: Features of validation images, which those of new images are compared with.
        checkpoints: The folder of checkpoints.
        best_checkpoint: The checkpoint of the best epoch.
        last_checkpoint: The checkpoint of the last epoch.
        previous_checkpoint: The one before it, while the run is not finished.
        probe_checkpoint: The checkpoint of the probe's best epoch, where fine-tuning follows it.
        model_dir: The folder of the finished model.
        log_file: The run's log.
        report_file: The page about the run.
        concluded: Whether this process has written the model and its scores, and only tells of them yet.
    """

    def __init__(self, path: Path) -> None:
        """Address a run's folder without looking at it; `open` checks that it is one."""
        self.path = Path(path).absolute()
        self.config_file = self.path / "config.yaml"
        self.record_file = self.path / RECORD
        self.history_file = self.path / "metrics.csv"
        self.metrics_file = self.path / "metrics.json"
        self.table_file = self.path / "table.parquet"
        self.reference_file = self.path / "reference.safetensors"
        self.checkpoints = self.path / "checkpoints"
        self.best_checkpoint = self.checkpoints / "best.ckpt"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.previous_checkpoint = self.checkpoints / "previous.ckpt"
        self.probe_checkpoint = self.checkpoints / "probe.ckpt"
        self.model_dir = self.path / "model"
        self.log_file = self.path / "train.log"
        self.report_file = self.path / "report.html"
        self.concluded = False

    @classmethod
    def create(cls, path: Path, *, config: dict[str, Any], command: list[str], seed: int) -> "Run":
        """Make the folder of a new run.

        Args:
            path: The folder; it may exist, but must not hold a run.
            config: The whole resolved configuration.
            command: The command line.
            seed: The run's seed.

        Raises:
            RunError: The folder already holds a run.
        """
        run = cls(path)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(run.record_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            raise RunError(
                f"{run.path} already holds a run. Name another folder, or continue it: finetune resume={run.path}"
            ) from None
        write_atomic(run.config_file, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        record = {"id": uuid.uuid4().hex[:8], "status": RUNNING, "created": _now(), "command": command, "seed": seed}
        write_json(run.record_file, {**record, **process(), "versions": versions(), "git": git_state()})
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Return the run in a folder.

        Raises:
            ConfigError: The folder holds no run.
        """
        run = cls(path)
        if not run.record_file.is_file() or not run.config_file.is_file():
            siblings = [entry.name for entry in run.path.parent.glob("*")] if run.path.parent.is_dir() else []
            raise ConfigError(
                f"{path} is not a run folder (it has no run.json and config.yaml).{nearest(run.path.name, siblings)}"
            )
        return run

    @classmethod
    def all(cls, root: Path) -> list["Run"]:
        """Return the runs below a folder, oldest first; those inside another, such as its folds, are that one's."""
        found = [cls(folder) for folder in run_folders(Path(root)) if (folder / "config.yaml").is_file()]
        return sorted(found, key=lambda run: (str(run.record.get("created", "")), str(run.path)))

    @classmethod
    def find(cls, reference: str, root: Path) -> "Run":
        """Return the run that a word means: last, a path, or the id or name of a run below `root`.

        Raises:
            ConfigError: There is no such run, or more than one.
        """
        if (Path(reference) / "run.json").is_file():
            return cls.open(Path(reference))
        runs = cls.all(root) if Path(root).is_dir() else []
        if reference == "last":
            if not runs:
                below = Path(root).absolute()
                raise ConfigError(f"There is no run below {below}. Train one (finetune), or name a folder (run=PATH).")
            return runs[-1]
        names = [(name, run) for run in runs for name in _names(run, Path(root))]
        exact = {run.path: run for name, run in names if name == reference}
        matches = exact or {run.path: run for name, run in names if reference and name.startswith(reference)}
        if len(matches) == 1:
            return next(iter(matches.values()))
        if matches:
            some = ", ".join(map(str, sorted(matches)[:3]))
            raise ConfigError(f"'{reference}' means {len(matches)} runs ({some}, …). Type one's folder or id.")
        near = nearest(reference, [*(name for name, _ in names), "last"])
        if os.sep in reference and Path(reference).parent.is_dir() and not near:
            return cls.open(Path(reference))
        raise ConfigError(f"There is no run '{reference}' below {Path(root).absolute()}.{near}")

    def predictions_file(self, split: str) -> Path:
        """Return where the predictions of a split lie."""
        return self.path / "predictions" / f"{split}.parquet"

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json."""
        return read_json(self.record_file) or {}

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json; nothing where the run did not get there.

        Raises:
            RunError: The file is damaged.
        """
        if not self.metrics_file.is_file():
            return {}
        found = read_json(self.metrics_file)
        if found is None:
            raise RunError(f"{self.metrics_file} is damaged. Remove it for a report without its scores.")
        return found

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, by today's names.

        Raises:
            RunError: The file is no configuration; the run was killed as it began, or the file was changed.
            ConfigError: It names what would run code that is none of finetune's.
        """
        config = read_stored_yaml(self.config_file)
        rename_config(config)
        check_stored(config, str(self.config_file))
        return config

    @property
    def status(self) -> str:
        """How the run stands; one whose process is gone without a word is interrupted."""
        if self.concluded:
            return FINISHED
        recorded = str(self.record.get("status", FAILED))
        return INTERRUPTED if recorded == RUNNING and not self.is_alive else recorded

    @property
    def is_alive(self) -> bool:
        """Whether the process that writes the run is still there."""
        record = self.record
        if record.get("host") != os.uname().nodename:
            return record.get("status") == RUNNING
        return record.get("process_started") is not None and record["process_started"] == process_start(
            int(record["pid"])
        )

    def update(self, **fields: Any) -> None:
        """Change fields of run.json."""
        write_json(self.record_file, {**self.record, **fields, "updated": _now()})

    def check_resumable(self) -> None:
        """Check that the run was interrupted or failed.

        Raises:
            ConfigError: The run is finished, or another process is still writing it.
        """
        status = self.status
        if status == FINISHED:
            hint = f"Look at it with: finetune evaluate run={self.path}"
            weights = self.path / "weights.safetensors"
            if weights.is_file():  # a pretraining
                hint = f"Start from its weights with: finetune model.weights={weights}"
            raise ConfigError(f"The run {self.path} is finished, there is nothing to resume. {hint}")
        if status == RUNNING:
            raise ConfigError(self._still_running())

    def continue_with(self, command: list[str]) -> None:
        """Mark the run as running again, by this process.

        Raises:
            ConfigError: The run is finished, or another process is still writing it.
        """
        self.check_resumable()
        remove_leftovers(self.path)
        resumed = [*self.record.get("resumed", []), {"at": _now(), "command": command}]
        self.update(status=RUNNING, resumed=resumed, **process())

    def _still_running(self) -> str:
        record = self.record
        place = f"process {record.get('pid')} on {record.get('host')}"
        if record.get("host") == os.uname().nodename:
            return f"The run {self.path} is still running ({place}). Stop it first, or wait for it."
        hint = f'If it is gone, set "status": "interrupted" in {self.record_file}'
        return f"The run {self.path} is recorded as running on another machine ({place}). {hint}"


def run_folders(root: Path) -> Iterator[Path]:
    """Yield the folders below a root that hold a run; what is inside a run is not looked at."""
    for folder, folders, files in os.walk(root):
        if RECORD in files:
            folders.clear()
            yield Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _names(run: Run, root: Path) -> list[str]:
    """Return what a run may be called: its folder's name, its path below the root, its id."""
    identity = run.record.get("id")
    below = run.path.relative_to(root.absolute()).as_posix()
    return [run.path.name, below, *([str(identity)] if identity else [])]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
