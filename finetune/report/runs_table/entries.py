"""Entries of the runs table: what record, configuration, metrics and history say, as flat values."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from finetune.config.aliases import RENAMED_KEYS, rename_config
from finetune.config.conditions import ConditionValue
from finetune.errors import ConfigError, RunError
from finetune.runs.history import FIRST, RunHistory
from finetune.runs.run import FINISHED, RUNNING, Run, run_folders
from finetune.runs.stored_files import read_json, read_stored_yaml

EntryValue = ConditionValue
_Source = Callable[[], Mapping[str, EntryValue]]

DAMAGED = "damaged"
# ends the path of a run that Hydra has named
STAMP = re.compile(r"/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d[^/]*$")
NEEDED = {"id", "status", "created"}  # of a record
_INTERVAL = {"value", "low", "high"}


class RunEntry:
    """A row of a list, with all its values by name."""

    def __init__(self, own: Mapping[str, EntryValue], more: _Source = dict, logged: _Source = dict) -> None:
        """Hold the values of the row.

        Args:
            own: What the list itself names.
            more: What else there is; asked when it is needed.
            logged: What was logged on the way, which takes long to read; asked last, for what may be in it.
        """
        self.own = own
        self.more = cache(more)
        self.logged = cache(logged)

    def value(self, key: str) -> EntryValue:
        """Return a value, or None where there is none."""
        found = self.own.get(key)
        if found is None:
            found = self.more().get(key)
        if found is None and ("/" in key or key in FIRST):
            found = self.logged().get(key)
        return found

    def interval(self, key: str) -> tuple[float, float] | None:
        """Return the ends of the interval of a metric, or None where it has none."""
        low, high = self.more().get(f"{key}_low"), self.more().get(f"{key}_high")
        return (float(low), float(high)) if low is not None and high is not None else None

    def keys(self) -> Iterator[str]:
        """Yield the names of all values, also of those that are None."""
        for found in (self.own, self.more(), self.logged()):
            yield from found


def find_entries(roots: Iterable[Path]) -> list[RunEntry]:
    """Return the runs below the folders, newest first; what is broken is there too.

    Raises:
        ConfigError: A folder is not there, or there is no run below any.
    """
    entries = []
    for root in roots:
        if not root.is_dir():
            raise ConfigError(f"There is no folder {root.absolute()}. Name the folder of your runs: runs=PATH.")
        entries += [entry_of(folder, root) for folder in run_folders(root)]
    if not entries:
        below = ", ".join(str(root.absolute()) for root in roots)
        raise ConfigError(f"There is no run below {below}. Train one (finetune), or name another folder: runs=PATH.")
    return sorted(entries, key=lambda entry: str(entry.value("created") or ""), reverse=True)


def entry_of(folder: Path, root: Path) -> RunEntry:
    """Return what is known of a run."""
    run = Run(folder)
    read = [
        read_json(run.record_file),
        read_config(run),
        read_json(run.metrics_file) if run.metrics_file.exists() else {},
    ]
    record, config, document = [found or {} for found in read]
    whole = None not in read and record.keys() >= NEEDED
    own = {
        "name": STAMP.sub("", folder.relative_to(root).as_posix() if folder != root else folder.name),
        "path": str(folder),
        "status": status_of(run) if whole else DAMAGED,
        **_summary_of(config),
        **times_of(record, running=whole and status_of(run) == RUNNING),
        "wandb": (record.get("wandb") or {}).get("id") if isinstance(record.get("wandb"), dict) else None,
    }
    rename_config(config)
    flat = {**flatten(config, "."), **flatten(record, "."), **metrics_of(document)}
    flat |= {old: flat[new] for old, new in RENAMED_KEYS.items() if new in flat}
    return RunEntry(own, lambda: flat, lambda: history_of(run, config))


def read_config(run: Run) -> dict[str, Any] | None:
    """Return a run's configuration, or None where it cannot be read."""
    try:
        return read_stored_yaml(run.config_file)
    except RunError:
        return None


def status_of(run: Run) -> str:
    """Return how a run stands."""
    try:
        return run.status
    except (KeyError, TypeError, ValueError):  # of a record that names no process
        return DAMAGED


def _summary_of(config: Mapping[str, Any]) -> dict[str, EntryValue]:
    """Return the short names of what a run was made of."""
    data = part(config, "data")
    place = data.get("root") or data.get("path")
    target = str(part(data, "source").get("_target_") or "").rpartition(".")[2]
    return {
        "strategy": part(config, "strategy").get("name"),
        "model": part(config, "model").get("name"),
        "data": Path(str(place)).name if place else data.get("name") or target or None,
    }


def part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a part of a configuration; empty where it is none."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def times_of(record: Mapping[str, Any], *, running: bool) -> dict[str, EntryValue]:
    """Return when a run was begun, in local time, and how many seconds it has taken; None where nobody knows."""
    begun = moment(record.get("created"))
    if begun is None:
        return {"when": None, "time": None}
    seconds: EntryValue = record.get("seconds")
    if running:
        seconds = (datetime.now(UTC) - begun).total_seconds()
    elif seconds is None and record.get("status") == FINISHED and "resumed" not in record:
        ended = moment(record.get("updated"))
        seconds = (ended - begun).total_seconds() if ended else None
    return {"when": begun.astimezone().strftime("%Y-%m-%d %H:%M"), "time": seconds}


def moment(text: Any) -> datetime | None:
    """Return a time that was written in ISO's form, or None where it is none."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def flatten(content: Mapping[str, Any], separator: str, prefix: str = "") -> dict[str, EntryValue]:
    """Return nested values by their whole names; a list is written as text."""
    found: dict[str, EntryValue] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found |= flatten(value, separator, f"{name}{separator}")
        else:
            found[name] = (json.dumps(value, default=str) if value else None) if isinstance(value, list) else value
    return found


def metrics_of(document: Mapping[str, Any], prefix: str = "") -> dict[str, EntryValue]:
    """Return the metrics of metrics.json by the names they have in W&B, such as test/f1_macro and test/f1_macro_low."""
    found: dict[str, EntryValue] = {}
    for key, value in document.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value.keys() == _INTERVAL:
            found |= {name: value["value"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
        elif isinstance(value, dict):
            found |= metrics_of(value, f"{name}/")
        elif not isinstance(value, list):
            found[name] = value
    return found


def history_of(run: Run, config: Mapping[str, Any]) -> dict[str, EntryValue]:
    """Return what the history says: of validation in the best epoch, of all else at last."""
    try:
        rows = RunHistory(run.history_file).read()
    except (OSError, ValueError, TypeError):
        return {}
    found: dict[str, EntryValue] = {}
    for row in rows:
        found |= row
    monitor = str(config.get("monitor"))
    scored = [row for row in rows if isinstance(row.get(monitor), int | float)]
    if scored:
        best = (max if config.get("mode") == "max" else min)(scored, key=lambda row: row[monitor])
        found |= {name: value for name, value in best.items() if name.startswith("val/")}
    return found
