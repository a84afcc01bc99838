"""Summary of a search: a table of its trials, its best configuration as an experiment, and what failed."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from finetune.config.compose import conf_dir
from finetune.runs.run import write_atomic
from finetune.runs.sweep_folder import SweepFolder
from finetune.search.spaces.grammar import parse_all
from finetune.search.study.study import STATES, Search, facts_of, within
from finetune.search.study.trials import StudyLocation

TrialRow = dict[str, Any]


@dataclass(frozen=True)
class BestTrial:
    """A best trial: its number and values, and how it is run again.

    Attributes:
        number: The trial's.
        values: By objective.
        overrides: That make it of the base configuration.
        command: That repeats it.
        folder: Of its run; None where it had none.
    """

    number: int
    values: Mapping[str, float]
    overrides: Sequence[str]
    command: str
    folder: str | None


def rows(search: Search, place: StudyLocation) -> list[TrialRow]:
    """Return a row for each trial that has been begun."""
    names = [each.name for each in search.settings.objectives]
    found = []
    for trial in search.trials():
        state = STATES[trial.state]
        if state == "waiting":
            continue
        facts = facts_of(trial)
        values = trial.values if state == "complete" and trial.values else [None] * len(names)
        costs = {name: value for name, value in facts.get("costs", {}).items() if name not in names}
        drawn = search.values_of(trial)
        typed = {each.key: each.text(drawn[each.key]) for each in search.space.dimensions if each.key in drawn}
        run = place.run_of(trial.number)
        found.append({
            "trial": trial.number, "state": state, **dict(zip(names, values, strict=True)), **typed, **costs,
            "within_budget": within(trial), "reports": len(trial.intermediate_values),
            "last_report": trial.intermediate_values.get(trial.last_step) if trial.last_step is not None else None,
            "seconds": facts.get("seconds"), "device": facts.get("slot"), "attempts": facts.get("attempts"),
            "cause": facts.get("cause"), "folder": str(run.path) if run.path.exists() else None,
        })  # fmt: skip
    return found


def best_of(
    search: Search, place: StudyLocation, fixed: Sequence[str], folder: SweepFolder, flags: Sequence[str]
) -> list[BestTrial]:
    """Return the best trials, and write each as an experiment."""
    names = [each.name for each in search.settings.objectives]
    found = []
    for rank, trial in enumerate(search.best()):
        overrides = [*fixed, *search.space.overrides(search.values_of(trial))]
        name = "best" if rank == 0 else f"best_{rank + 1}"
        values = dict(zip(names, trial.values, strict=True))
        reached = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
        line = f"Trial {trial.number} of {len(search.trials())}: {reached}."
        command = write_experiment(overrides, folder, name, line, flags)
        run = place.run_of(trial.number)
        found.append(BestTrial(trial.number, values, overrides, command, str(run.path) if run.path.exists() else None))
    return found


def write_experiment(
    overrides: Sequence[str], folder: SweepFolder, name: str, headline: str, flags: Sequence[str]
) -> str:
    """Write overrides as a file of the group experiment, and return the command that runs it.

    What a file cannot say in the place of the command line (a deleted key, debug=) makes the command the whole one.
    """
    chosen, values, left = sort_out(overrides)
    place = f"hydra.searchpath=['file://{folder.experiments}']" if flags else f"--config-dir={folder.experiments}"
    command = shlex.join(["finetune", *flags, *(overrides if left else (place, f"experiment={name}"))])
    defaults = [*([chosen.pop("experiment")] if "experiment" in chosen else []),
                *({f"override /{group}": option} for group, option in chosen.items()), "_self_"]  # fmt: skip
    text = yaml.safe_dump({"defaults": defaults, **values}, sort_keys=False, allow_unicode=True)
    head = f"# @package _global_\n# {headline}\n#   {command}\n"
    write_atomic(folder.experiments / "experiment" / f"{name}.yaml", head + text)
    return command


def sort_out(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return the options of groups, the values of settings by their place, and what a file cannot say."""
    groups = [entry.name for entry in conf_dir().iterdir() if entry.is_dir()]
    chosen: dict[str, Any] = {}
    values: dict[str, Any] = {}
    left = []
    for override in parse_all(overrides):
        key = override.key_or_group
        if override.is_delete() or override.package is not None or key == "debug":
            left.append(str(override.input_line))
        elif key in groups:
            chosen[key] = override.value()
        else:
            *place, last = key.split(".")
            node = values
            for part in place:
                node = node.setdefault(part, {})
            node[last] = override.value()
    return chosen, values, left


def failures(table: Sequence[TrialRow], place: StudyLocation) -> list[str]:
    """Return a line for each trial that failed: its cause and its log."""
    return [
        f"Trial {row['trial']} failed: {row['cause']} ({place.log_of(int(row['trial']))})"
        for row in table
        if row["state"] == "failed"
    ]
