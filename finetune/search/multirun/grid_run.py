"""The jobs of a multirun: what is kept of them, and how they run to their ends on the devices of a pool."""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from finetune.config.compose import to_dict
from finetune.config.error_messages import error_message
from finetune.config.settings.search_groups import PoolSettings
from finetune.errors import ConfigError, FinetuneError
from finetune.runs.run import write_json
from finetune.search.multirun.grid import JobPlan, configurations
from finetune.search.multirun.live_table import LiveTable
from finetune.search.multirun.scheduler import Stop, drive_pool
from finetune.search.pools.jobs import DONE, Job, Outcome, Pool
from finetune.search.pools.pool_factory import build_pool

MULTIRUN_SCHEMA = "multirun_schema"  # the root of what -m itself reads


@dataclass
class Multirun:
    """Jobs, and how those that ended did.

    Attributes:
        folder: Where their output and the record lie.
        plans: The jobs.
        command: The command line of each.
        time_limit: Seconds that each may take; None for no limit.
        outcomes: How jobs ended, by their key.
    """

    folder: Path
    plans: Sequence[JobPlan]
    command: Sequence[str]
    time_limit: float | None
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Number the jobs."""
        self.of_key = {str(number): plan for number, plan in enumerate(self.plans)}
        self._ahead = iter(self.of_key.items())

    def next_job(self) -> Job | None:
        """Return the next job that has not been started; None where all have."""
        for key, plan in self._ahead:
            command = (*self.command, *plan.overrides)
            return Job(key, command, self.log(key), {}, self.time_limit)
        return None

    def log(self, key: str) -> Path:
        """Return where the output of a job goes."""
        return self.folder / f"{key}.log"

    def write(self) -> None:
        """Write which jobs there are and how they stand."""
        jobs = [{"job": key, **self._record(key, plan)} for key, plan in self.of_key.items()]
        write_json(self.folder / "multirun.json", {"command": sys.argv, "jobs": jobs})

    def _record(self, key: str, plan: JobPlan) -> dict[str, Any]:
        run = None if plan.folder is None else str(plan.folder.absolute())
        record: dict[str, Any] = {"overrides": plan.what, "run": run, "log": self.log(key).name, "state": None}
        outcome = self.outcomes.get(key)
        if outcome is not None:
            times = {"started": datetime.fromtimestamp(outcome.started, UTC).isoformat(), "seconds": outcome.seconds}
            record |= {"state": outcome.reason, "exit_code": outcome.code, "device": outcome.slot, **times}
        return record

    @property
    def failed(self) -> list[Outcome]:
        """The jobs that ended otherwise than well."""
        return [outcome for outcome in self.outcomes.values() if outcome.reason != DONE]


def pool_settings(config_dir: str | None, overrides: Sequence[str]) -> PoolSettings:
    """Return the settings of the pool that were typed beside those of the jobs.

    Raises:
        ConfigError: There are no such settings.
    """
    try:
        with configurations(MULTIRUN_SCHEMA, config_dir) as search:
            return PoolSettings.read(to_dict(compose(MULTIRUN_SCHEMA, [*search, *overrides]))["pool"])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(error_message(error, [f"--config-name={MULTIRUN_SCHEMA}", *overrides])) from error


def new_multirun_folder(wanted: Path) -> Path:
    """Make the folder of a multirun, with a number where another one has just taken its name.

    Raises:
        ConfigError: It cannot be made.
    """
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}_{number}")
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(
                f"The multirun's folder cannot be made ({error.strerror}: {error.filename}). Set hydra.sweep.dir= to "
                "another."
            ) from error
    return folder


def open_pool(settings: PoolSettings, folder: Path) -> Pool:
    """Return the pool; where there can be none, the folder made for the multirun goes again."""
    try:
        return build_pool(settings, folder)
    except FinetuneError:
        folder.rmdir()
        with contextlib.suppress(OSError):  # there are others
            folder.parent.rmdir()
        raise


def run_grid_jobs(multirun: Multirun, pool: Pool, stop: Stop, board: LiveTable) -> None:
    """Run the jobs to their ends, or until a stop is asked for, and show and record them."""

    def started(job: Job, slot: str) -> None:
        plan = multirun.of_key[job.key]
        board.begin(job.key, plan.what, slot, folder=plan.folder, epochs=plan.epochs)

    def ended(outcome: Outcome) -> None:
        multirun.outcomes[outcome.key] = outcome
        multirun.write()
        board.end(outcome.key, outcome.reason)

    def tick() -> None:
        if stop.asked and not board.remark:
            board.note("Stopping: each job ends after what it is doing. Ctrl-C once more kills them.")
        board.follow(pool.running())

    multirun.write()
    drive_pool(pool, stop, next_job=multirun.next_job, started=started, ended=ended, tick=tick)
