"""The run folder: where each file of a run lies, what state the run is in, and how a run is found again.

It decides the layout that other people's scripts may rely on and writes every file atomically; what is in the files is
left to the parts that produce them.
"""

import json
import math
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from finetune.errors import ConfigError, RunError, nearest

PACKAGES = ("finetune-images", "torch", "torchvision", "timm", "pytorch-lightning", "torchmetrics", "hydra-core", "wandb")
RUNNING, FINISHED, FAILED, INTERRUPTED, PRUNED = "running", "finished", "failed", "interrupted", "pruned"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, which replaces it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file, or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON; a number that is not finite becomes null."""
    write_atomic(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


class Run:
    """A run's folder.

    Attributes:
        path: The folder, absolute.
    """

    def __init__(self, path: Path) -> None:
        """Address a run's folder without looking at it; `open` checks that it is one."""
        self.path = Path(path).absolute()

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
            raise RunError(f"{run.path} already holds a run. Name another folder, or continue it: finetune resume={run.path}") from None
        run.config_file.write_text("")
        write_atomic(run.config_file, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        record = {"id": uuid.uuid4().hex[:8], "status": RUNNING, "created": _now(), "command": command, "seed": seed}
        write_json(run.record_file, {**record, **_process(), "versions": versions(), "git": git_state()})
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
            raise ConfigError(f"{path} is not a run folder (it has no run.json and config.yaml).{nearest(run.path.name, siblings)}")
        return run

    @classmethod
    def all(cls, root: Path) -> list["Run"]:
        """Return the runs below a folder, oldest first."""
        found = [cls(file.parent) for file in Path(root).glob("**/run.json") if (file.parent / "config.yaml").is_file()]
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
                raise ConfigError(f"There is no run below {Path(root).absolute()}. Train one first (finetune), or name its folder (run=PATH).")
            return runs[-1]
        if os.sep in reference and not (Path(root) / reference).exists():
            return cls.open(Path(reference))
        names = {name: run for run in runs for name in (run.path.name, str(run.record.get("id")), f"{run.path.parent.name}/{run.path.name}")}
        matches = {run.path: run for name, run in names.items() if name.startswith(reference)}
        if len(matches) == 1:
            return next(iter(matches.values()))
        if matches:
            raise ConfigError(f"{len(matches)} runs are meant by '{reference}'. Name one by its folder: {', '.join(map(str, sorted(matches)[:3]))} …")
        raise ConfigError(f"There is no run '{reference}' below {Path(root).absolute()}.{nearest(reference, [*names, 'last'])}")

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def record_file(self) -> Path:
        """What identifies the run and says how it stands."""
        return self.path / "run.json"

    @property
    def history_file(self) -> Path:
        """The values of each epoch."""
        return self.path / "metrics.csv"

    @property
    def metrics_file(self) -> Path:
        """The final metrics with their intervals."""
        return self.path / "metrics.json"

    @property
    def table_file(self) -> Path:
        """Which images are in which split."""
        return self.path / "table.parquet"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.checkpoints / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint of the last epoch."""
        return self.checkpoints / "last.ckpt"

    @property
    def model_dir(self) -> Path:
        """The folder of the finished model."""
        return self.path / "model"

    @property
    def log_file(self) -> Path:
        """The run's log."""
        return self.path / "train.log"

    @property
    def report_file(self) -> Path:
        """The page about the run."""
        return self.path / "report.html"

    def predictions_file(self, split: str) -> Path:
        """Return where the predictions of a split lie."""
        return self.path / "predictions" / f"{split}.parquet"

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json."""
        try:
            return dict(json.loads(self.record_file.read_text()))
        except (OSError, ValueError):
            return {}

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return dict(yaml.safe_load(self.config_file.read_text()))

    @property
    def status(self) -> str:
        """How the run stands; one whose process is gone without a word is interrupted."""
        recorded = str(self.record.get("status", FAILED))
        return INTERRUPTED if recorded == RUNNING and not self.is_alive else recorded

    @property
    def is_alive(self) -> bool:
        """Whether the process that writes the run is still there."""
        record = self.record
        if record.get("host") != os.uname().nodename:
            return record.get("status") == RUNNING
        return record.get("process_started") is not None and record["process_started"] == _process_start(int(record["pid"]))

    def update(self, **fields: Any) -> None:
        """Change fields of run.json."""
        write_json(self.record_file, {**self.record, **fields, "updated": _now()})

    def continue_with(self, command: list[str]) -> None:
        """Mark the run as running again, by this process.

        Raises:
            ConfigError: The run is finished, or another process is still writing it.
        """
        status = self.status
        if status == FINISHED:
            raise ConfigError(f"The run {self.path} is finished, there is nothing to resume. Look at it with: finetune evaluate run={self.path}")
        if status == RUNNING:
            raise ConfigError(f"The run {self.path} is still running (process {self.record.get('pid')}). Stop it first, or wait for it.")
        resumed = [*self.record.get("resumed", []), {"at": _now(), "command": command}]
        self.update(status=RUNNING, resumed=resumed, **_process())


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def _process() -> dict[str, Any]:
    return {"pid": os.getpid(), "process_started": _process_start(os.getpid()), "host": os.uname().nodename}


def _process_start(pid: int) -> str | None:
    """Return what tells a process from a later one of the same number, or None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return found.stdout.strip() or None
    return None if fields[0] in "ZX" else fields[19]


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide a run's numbers."""
    import platform

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Return the commit of the current folder and whether it has changes, or None where there is no checkout."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(changes.strip())}
