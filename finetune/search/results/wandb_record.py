"""The sweep's own record in W&B, in the group of its trials' runs."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from finetune.config.settings.run_groups import WandbSettings
from finetune.errors import FinetuneError
from finetune.runs.run import Run
from finetune.runs.sweep_folder import SweepFolder
from finetune.search.results.summary import BestTrial, TrialRow

log = logging.getLogger(__name__)


def record_sweep(
    folder: SweepFolder,
    logger: WandbSettings | None,
    table: Sequence[TrialRow],
    best: Sequence[BestTrial],
    *,
    code: int,
) -> None:
    """Open a W&B run for the sweep, or the one it had, write what was found, and close it.

    Args:
        folder: The sweep's; its record is the run's configuration.
        logger: The settings of logger.wandb; None where trials are not tracked.
        table: The trials.
        best: The best of them.
        code: The exit code.
    """
    if logger is None:
        return
    import wandb

    from finetune.runs.wandb import own_environment
    from finetune.runs.wandb_connection import open_wandb_run, resolve_mode

    record = folder.record
    try:
        with own_environment(Run(folder.path)):
            mode = resolve_mode(logger.mode)
            if mode == "disabled":
                return
            known = record.get("wandb", {}).get("id")
            tracked = open_wandb_run(
                project=logger.project, entity=logger.entity, id=known, name=folder.name[:128],
                group=folder.name, job_type="sweep", config={key: record[key] for key in ("request", "space")},
                dir=str(folder.path), mode=mode, resume="allow" if known and mode == "online" else None,
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", quiet=True, x_save_requirements=False),
            )  # fmt: skip
            columns: list[str | int] = list(dict.fromkeys(name for row in table for name in row))
            cells: list[Iterable[Any]] = [
                [None if row.get(str(name)) is None else str(row[str(name)]) for name in columns] for row in table
            ]
            tracked.log({"trials": wandb.Table(columns=columns, data=cells)})
            tracked.summary.update(_summary_of(table, best))
            folder.update({"wandb": {"id": tracked.id, "url": None if tracked.offline else tracked.url}})
            tracked.finish(exit_code=code)
    except FinetuneError as error:
        log.warning("The sweep has no record in W&B: %s", error)


def _summary_of(table: Sequence[TrialRow], best: Sequence[BestTrial]) -> dict[str, Any]:
    """Return how many trials ended how, and the best."""
    states = [row["state"] for row in table]
    found: dict[str, Any] = {f"trials/{state}": states.count(state) for state in dict.fromkeys(states)}
    for each in best[:1]:
        found |= {f"best/{name}": value for name, value in each.values.items()}
        found |= {"best/trial": each.number, "best/command": each.command}
    return found
