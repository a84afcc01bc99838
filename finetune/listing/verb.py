"""The verb runs: run folders as a table, and the evaluations of one run over time, without a tracker.

It is a composition root, the only code of listing that sees a config; it imports nothing that takes long.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from finetune.config import to_dict
from finetune.errors import ConfigError
from finetune.listing.choice import Choice, read_choice
from finetune.listing.entries import Entry, find_entries
from finetune.listing.output import check_output, write
from finetune.listing.screen import show

COLUMNS = (
    "name", "id", "status", "strategy", "model", "data", "test/accuracy", "test/f1_macro", "time", "when", "wandb",
)  # fmt: skip


def runs(cfg: DictConfig) -> None:
    """Print the runs below a folder as a table, and write them to a file where one is named.

    Raises:
        ConfigError: There is no run, or a setting is not one.
    """
    config = to_dict(cfg)
    choice = choose(config, COLUMNS)
    entries = find_entries(roots(config["runs"]))
    finish(entries, choice, config, "runs")


def choose(config: dict[str, Any], default: tuple[str, ...]) -> Choice:
    """Return what is asked for.

    Raises:
        ConfigError: A setting is not one.
    """
    if config["output"] is not None:
        check_output(Path(config["output"]).expanduser())
    return read_choice(
        config["columns"], default, conditions=config["filter"], sort=config["sort"], limit=config["limit"]
    )


def roots(typed: object) -> list[Path]:
    """Return the folders that are looked through.

    Raises:
        ConfigError: None is named.
    """
    names = [typed] if isinstance(typed, str) else typed
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise ConfigError(f"runs={typed} is no folder. Type runs=PATH, or several: runs=[runs,sweeps].")
    return [Path(name).expanduser() for name in names]


def finish(entries: list[Entry], choice: Choice, config: dict[str, Any], what: str) -> None:
    """Print the rows that are asked for, and write them to a file where one is named."""
    from rich.console import Console

    console = Console()
    rows = choice.apply(entries)
    show(rows, choice.columns, console, asked=choice.asked, total=len(entries), what=what)
    if config["output"] is not None:
        output = Path(config["output"]).expanduser()
        write(output, rows, choice.columns, f"{len(rows):,} {what}")
        console.print(f"Written to {output}", highlight=False, soft_wrap=True, markup=False)
