"""A multirun: the jobs of a grid on the devices of a pool, shown as they go and told one by one at the end.

It decides what is kept of a multirun and with which exit code it ends; which jobs there are is the grid's, and where
they run is the pool's.
"""

import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from hydra import compose
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from finetune.config.compose import to_dict
from finetune.config.error_messages import error_message
from finetune.errors import ConfigError, FinetuneError
from finetune.runs.run import INTERRUPTED, Run, write_json
from finetune.search.multirun.grid import JobPlan, configurations, plan_jobs, without_pool
from finetune.search.multirun.live_table import LiveTable
from finetune.search.multirun.scheduler import Stop, drive, stoppable
from finetune.search.pools.jobs import DONE, FAILED, Job, Outcome, Pool, last_words
from finetune.search.pools.pool_factory import build_pool

SCHEMA = "multirun_schema"  # the root of what -m itself reads


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


def run_multirun(arguments: Sequence[str]) -> int:
    """Run the jobs of a command line, and return the exit code.

    It is 0 where all are done, 1 where one failed, 130 after Ctrl-C and 143 after SIGTERM.

    Args:
        arguments: The command line without the program, with -m.

    Raises:
        ConfigError: The settings of the pool or of some job are wrong; no job has been started then.
    """
    typed = get_args_parser().parse_args(list(arguments))
    overrides, of_pool = without_pool(typed.overrides)
    settings = pool_settings(typed.config_dir, of_pool)
    plans = plan_jobs(typed.config_name or "train", typed.config_dir, overrides)
    flags = [f"--config-name={typed.config_name}"] if typed.config_name else []
    flags += [f"--config-dir={typed.config_dir}"] if typed.config_dir else []
    command = [sys.executable, "-m", "finetune", *flags]
    multirun = Multirun(new_multirun_folder(plans[0].home), plans, command, settings["time_limit"])
    with (
        closing(open_pool(settings, multirun.folder)) as pool,
        stoppable() as stop,
        LiveTable("job", plans[0].monitor, plans[0].mode, total=len(plans), slots=pool.size) as board,
    ):
        board.say(f"{len(plans)} jobs, {pool.size} at a time; their output is in {multirun.folder}")
        run_grid_jobs(multirun, pool, stop, board)
    return tell_end(multirun, stop, board)


def pool_settings(config_dir: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings of the pool that were typed beside those of the jobs.

    Raises:
        ConfigError: There are no such settings.
    """
    try:
        with configurations(SCHEMA, config_dir) as search:
            return dict(to_dict(compose(SCHEMA, [*search, *overrides]))["pool"])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(error_message(error, [f"--config-name={SCHEMA}", *overrides])) from error


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


def open_pool(settings: Mapping[str, Any], folder: Path) -> Pool:
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
        board.refresh()

    multirun.write()
    drive(pool, stop, next_job=multirun.next_job, started=started, ended=ended, tick=tick)


def tell_end(multirun: Multirun, stop: Stop, board: LiveTable) -> int:
    """Print the best job, those that failed and those that can be continued, and return the exit code."""
    best = board.best
    if best is not None:
        print(
            f"Best {board.monitor} {best.progress.best:.4f}: job {best.name} ({best.what}){place(multirun, best.name)}"
        )
    failed, number = multirun.failed, len(multirun.plans)
    done = len(multirun.outcomes) - len(failed)
    interrupted = stop.asked and done < number
    if interrupted:
        print(f"finetune: Interrupted when {done} of {number} jobs were done.", file=sys.stderr)
    elif failed:
        print(f"finetune: {len(failed)} of {number} jobs failed:", file=sys.stderr)
    for outcome in failed:
        print(f"  {_described(multirun, outcome)}", file=sys.stderr)
    if interrupted:
        return stop.exit_code
    return 1 if failed else 0


def place(multirun: Multirun, key: str) -> str:
    """Return where the run of a job lies, in words."""
    folder = multirun.of_key[key].folder
    return "" if folder is None else f" in {folder}"


def _described(multirun: Multirun, outcome: Outcome) -> str:
    """Return how a job failed, what it said last, and what can be done with it."""
    plan, log = multirun.of_key[outcome.key], multirun.log(outcome.key)
    code = f" with exit code {outcome.code}" if outcome.reason == FAILED else ""
    job = f"job {outcome.key} ({plan.what}) {outcome.reason}{code}"
    if plan.folder is not None and Run(plan.folder).status == INTERRUPTED:
        return f"{job}; continue it with: finetune resume={shlex.quote(str(plan.folder))}"
    return f"{job}: {last_words(log)} Its output is in {log}."
