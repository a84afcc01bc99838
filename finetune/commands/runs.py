"""finetune runs: run folders as a table, and the evaluations of one run over time, without a tracker."""

from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from finetune.config.resolve import resolve
from finetune.config.settings.review_roots import RunsSettings
from finetune.errors import ConfigError
from finetune.evaluation.drift.timeline import timeline
from finetune.report.console.runs_console import show_runs
from finetune.report.runs_table.entries import RunEntry, find_entries
from finetune.report.runs_table.row_selection import RowSelection, read_choice
from finetune.report.runs_table.table_output import check_output, write_rows
from finetune.runs.run import Run

# the usual columns of each list, and which of them a narrow screen does without, the first first
RUNS: tuple[str, ...] = (
    "name", "id", "status", "strategy", "model", "data", "test/accuracy", "test/f1_macro", "time", "when", "wandb",
)  # fmt: skip


EVALUATIONS: tuple[str, ...] = (
    "when", "images", "split", "n", "accuracy", "f1_macro", "drift/inputs", "drift/inputs_p", "drift/classes",
    "drift/confidence", "drifted",
)  # fmt: skip
DISPENSABLE = {
    RUNS: ("wandb", "data", "when", "model", "test/f1_macro", "strategy", "id", "time"),
    EVALUATIONS: ("f1_macro", "split", "drift/confidence", "drift/classes", "drift/inputs_p", "drift/inputs"),
}


def runs(cfg: DictConfig) -> None:
    """Print the runs below a folder, or the evaluations of one run, and write them to a file where one is named.

    Raises:
        ConfigError: There is no run, or a setting is not one.
    """
    settings = resolve(cfg, RunsSettings)
    folders = roots(settings.runs)
    if settings.run is None:
        choice = _choose(settings, RUNS)
        _finish(find_entries(folders), choice, settings, "runs")
    else:
        choice = _choose(settings, EVALUATIONS)
        _finish(evaluations(settings.run, folders), choice, settings, "evaluations")


def evaluations(reference: str, folders: list[Path]) -> list[RunEntry]:
    """Return the evaluations of a run, oldest first.

    Raises:
        ConfigError: There is no such run, it is looked for in several folders, or it was never evaluated.
    """
    if len(folders) > 1:
        raise ConfigError(f"run={reference} is looked for in one folder. Type runs=PATH with it, or the run's folder.")
    run = Run.find(reference, folders[0])
    rows = timeline(run)
    if not rows:
        raise ConfigError(f"{run.path} has no evaluation yet. Score it: finetune evaluate run={run.path}")
    return [RunEntry({}, partial(dict, row)) for row in rows]


def _choose(settings: RunsSettings, default: tuple[str, ...]) -> RowSelection:
    """Return what is asked for.

    Raises:
        ConfigError: A setting is not one.
    """
    if settings.output is not None:
        check_output(Path(settings.output).expanduser())
    return read_choice(settings.columns, default, conditions=settings.filter, sort=settings.sort, limit=settings.limit)


def roots(typed: object) -> list[Path]:
    """Return the folders that are looked through.

    Raises:
        ConfigError: None is named.
    """
    names = [typed] if isinstance(typed, str) else typed
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise ConfigError(f"runs={typed} is no folder. Type runs=PATH, or several: runs=[runs,sweeps].")
    return [Path(name).expanduser() for name in names]


def _finish(entries: list[RunEntry], choice: RowSelection, settings: RunsSettings, what: str) -> None:
    """Print the rows that are asked for, and write them to a file where one is named."""
    from rich.console import Console

    console = Console()
    rows = choice.apply(entries)
    dispensable = () if choice.asked else DISPENSABLE[choice.columns]
    show_runs(rows, choice.columns, console, dispensable=dispensable, total=len(entries), what=what)
    if settings.output is not None:
        output = Path(settings.output).expanduser()
        below = f"below {', '.join(map(str, roots(settings.runs)))}" if settings.run is None else f"of {settings.run}"
        asked = f" with {settings.filter}" if settings.filter is not None else ""
        write_rows(output, rows, choice.columns, f"{len(rows):,} {what} {below}{asked}")
        console.print(f"Written to {output}", highlight=False, soft_wrap=True, markup=False)
