"""The folder of a sweep: where its files lie, and how it is found again."""

import csv
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from finetune.errors import ConfigError, RunError, nearest
from finetune.runs.run import write_json
from finetune.runs.stored_files import read_stored_json


class SweepFolder:
    """A sweep's folder.

    Attributes:
        path: The folder, absolute.
        record_file: What the sweep is, how it stands, and its best trials.
        table_file: A row for each trial.
        page_file: The plots.
        log_file: What the screen showed, with times.
        experiments: A folder of configurations, to be given as --config-dir.
    """

    def __init__(self, path: Path) -> None:
        """Address a folder without looking at it."""
        self.path = Path(path).absolute()
        self.record_file = self.path / "sweep.json"
        self.table_file = self.path / "sweep.csv"
        self.page_file = self.path / "sweep.html"
        self.log_file = self.path / "sweep.log"
        self.experiments = self.path / "conf"

    @property
    def name(self) -> str:
        """The name that the sweep has in a storage and in W&B: its folder's name and when it was begun."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def record(self) -> dict[str, Any]:
        """The content of sweep.json; empty where there is none.

        Raises:
            ConfigError: It cannot be read.
        """
        if not self.record_file.exists():
            return {}
        try:
            return read_stored_json(self.record_file)
        except RunError as error:
            raise ConfigError(f"{error} Start the sweep anew.") from error

    def discard(self) -> None:
        """Remove a folder that holds nothing, and those above it that hold nothing else."""
        self.path.rmdir()
        for parent in self.path.parents[:2]:
            if not any(parent.iterdir()):
                parent.rmdir()

    def update(self, fields: Mapping[str, Any]) -> None:
        """Change fields of sweep.json."""
        write_json(self.record_file, {**self.record, **fields})


def new_sweep_folder(root: Path, name: str) -> SweepFolder:
    """Return a folder that is not there yet, and make it.

    Raises:
        ConfigError: It cannot be made.
    """
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        path = root / name / (stamp if number == 1 else f"{stamp}_{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            hint = f"{error.strerror}: {error.filename}"
            raise ConfigError(f"The sweep's folder cannot be made ({hint}). Set sweep.folder to another.") from error
        return SweepFolder(path)
    raise ConfigError(f"{root / name} holds a thousand sweeps of this second. Set sweep.name to another.")


def find_folder(reference: str, root: Path) -> SweepFolder:
    """Return the sweep that a word means: last, a folder, or the name of one below `root`.

    Raises:
        ConfigError: There is no such sweep.
    """
    if (Path(reference) / "sweep.json").is_file():
        return SweepFolder(Path(reference))
    found = [SweepFolder(file.parent) for file in root.glob("*/*/sweep.json")]
    found.sort(key=lambda each: (str(each.record.get("created", "")), str(each.path)))
    matches = [each for each in found if reference in ("last", each.name, each.path.name, each.path.parent.name)]
    if not matches:
        near = nearest(reference, ["last", *(each.name for each in found)])
        raise ConfigError(f"There is no sweep '{reference}' below {root.absolute()}.{near}")
    return matches[-1]


def best_folders(reference: str, setting: str, top: int) -> list[str]:
    """Return the run folders of a sweep's best trials, the best first.

    Args:
        reference: last, a folder, or a name.
        setting: What the user typed it in.
        top: How many at most.

    Raises:
        ConfigError: The sweep has not ended, or fewer than two of its trials have a folder.
    """
    folder = find_folder(reference, Path("sweeps"))
    objectives = folder.record.get("objectives")
    if not objectives or not folder.table_file.is_file():
        raise ConfigError(
            f"{setting}={folder.path} has no results yet. Let it go on: finetune sweep resume={folder.path}"
        )
    name, sign = objectives[0]["name"], -1 if objectives[0]["direction"] == "max" else 1
    with folder.table_file.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "complete" and row["folder"]]
    rows.sort(key=lambda row: sign * float(row[name]))
    if len(rows) < 2:
        raise ConfigError(f"{setting}={folder.path} has {len(rows)} trials with a run folder; two are needed.")
    return [row["folder"] for row in rows[:top]]
