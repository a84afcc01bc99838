"""The pool of a Slurm cluster: each job is one of Slurm's, submitted through submitit.

The folder of the pool has to be one that all nodes share.
"""

import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.config.settings.search_groups import SlurmSettings
from finetune.errors import ConfigError, MissingExtraError
from finetune.search.pools.heartbeat import Owner
from finetune.search.pools.jobs import Job, Outcome, end_jobs
from finetune.search.pools.slurm_jobs import LOST, WAITING, SlurmJob, SlurmRemoteJob, ask_slurm, last_line
from finetune.search.pools.supervised_process import RemoteJob, unstarted

if TYPE_CHECKING:
    import submitit

SLURM_COMMANDS = ("sbatch", "squeue", "scancel")
LOOK = 0.25  # seconds between two looks at the files of the jobs
_ASK = 3.0  # seconds between two questions to Slurm, which answers for all users of the cluster
_MARGIN = 30.0  # seconds before Slurm's own limit at which a job is asked to end, besides the grace


def submitit_options(settings: SlurmSettings) -> dict[str, Any]:
    """Return settings as submitit takes them."""
    wanted = {
        "slurm_partition": settings.partition,
        "gpus_per_node": settings.devices_per_job or None,
        "mem_gb": settings.memory_gb,
        "slurm_setup": list(settings.setup) or None,
    }
    return {
        "name": "finetune",
        "timeout_min": settings.minutes,
        "cpus_per_task": settings.cpus,
        "tasks_per_node": 1,
        "slurm_use_srun": False,
        # a job that Slurm started once more would find the folder of its run taken
        "slurm_additional_parameters": {"no_requeue": True, **settings.parameters},
        **{name: value for name, value in wanted.items() if value is not None},
    }


class SlurmPool:
    """Runs each job as a job of Slurm's.

    Attributes:
        size: How many wait or run at a time.
    """

    def __init__(self, settings: SlurmSettings, folder: Path) -> None:
        """Make a pool; nothing is submitted yet.

        Args:
            settings: What is asked of Slurm.
            folder: Where its files lie; all nodes have to share it.

        Raises:
            ConfigError: submitit or Slurm is not there, or an option is not one of Slurm's.
        """
        self.size = settings.jobs
        self.settings = settings
        self.folder = folder.absolute()
        self._executor = make_executor(settings, self.folder)
        self._owner = Owner(self.folder / "owner")
        self._jobs: dict[str, SlurmJob] = {}
        self._refused: list[Outcome] = []
        self._asked = float("-inf")

    def free(self) -> int:
        """Return how many more may be submitted."""
        return self.size - len(self._jobs)

    def submit(self, job: Job) -> None:
        """Submit a job to Slurm.

        Raises:
            RuntimeError: As many as may be are there, or one of this key.
        """
        import submitit.core.utils

        if not self.free() or job.key in self.running():
            raise RuntimeError(f"Job {job.key} was submitted twice, or while {self.size} wait or run.")
        seconds = 60.0 * self.settings.minutes
        granted = max(seconds / 2, seconds - self.settings.grace - _MARGIN)
        limit = granted if job.time_limit is None else min(granted, job.time_limit)
        limited = replace(job, time_limit=limit, log=job.log.absolute())
        signal_file = self.folder / f"signal_{job.key}"
        signal_file.unlink(missing_ok=True)
        task = RemoteJob(limited, os.getcwd(), self.settings.cpus, self.settings.grace)
        remote_job = SlurmRemoteJob(task, signal_file, self._owner.file, self._owner.name)
        try:
            handle = self._executor.submit(remote_job)
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
            self._refused.append(unstarted(job, WAITING, last_line(error)))
            return
        self._jobs[job.key] = SlurmJob(job, handle, signal_file)

    def running(self) -> Mapping[str, str]:
        """Return the node of each job whose outcome has not been told, by its key."""
        refused = {outcome.key: outcome.slot for outcome in self._refused}
        return {**refused, **{key: submitted.slot for key, submitted in self._jobs.items()}}

    def poll(self, timeout: float) -> list[Outcome]:
        """Return the jobs that ended, waiting at most `timeout` seconds for the first."""
        ended, self._refused = self._refused, []
        deadline = time.monotonic() + timeout
        while True:
            self._owner.beat()
            self._ask()
            for key, submitted in list(self._jobs.items()):
                submitted.on_time()
                outcome = submitted.outcome()
                if outcome is not None:
                    del self._jobs[key]
                    ended.append(outcome)
            left = deadline - time.monotonic()
            if ended or not self._jobs or left <= 0:
                return ended
            time.sleep(min(LOOK, left))

    def cancel(self, key: str, *, hard: bool = False) -> None:
        """Ask a job to end, or kill it; one that still waits is taken back."""
        if key in self._jobs:
            self._jobs[key].cancel(hard=hard)

    def close(self) -> None:
        """End all jobs and wait until they have; those that do not end within the grace are killed."""
        patience = self.settings.grace + LOST
        end_jobs(self, patience, patience)

    def _ask(self) -> None:
        """Ask Slurm how its jobs stand, for all of them at once and not too often."""
        if not self._jobs or time.monotonic() - self._asked < _ASK:
            return
        self._asked = time.monotonic()
        states = ask_slurm([str(submitted.handle.job_id) for submitted in self._jobs.values()])
        for submitted in self._jobs.values():
            known = states.get(str(submitted.handle.job_id))
            if known is not None:
                submitted.learn(*known)


def make_executor(settings: SlurmSettings, folder: Path) -> "submitit.AutoExecutor":
    """Return what submits jobs.

    Raises:
        ConfigError: submitit or Slurm is not there, or an option is not one of Slurm's.
    """
    try:
        import submitit
    except ImportError as error:
        raise MissingExtraError("pool=slurm", "slurm") from error
    missing = [command for command in SLURM_COMMANDS if shutil.which(command) is None]
    if missing:
        raise ConfigError(
            f"pool=slurm needs Slurm's commands, and {missing[0]} is not on this machine. Type the command on a login "
            "node of the cluster, or use pool=local."
        )
    logging.getLogger("submitit").setLevel(logging.ERROR)
    executor = submitit.AutoExecutor(folder=folder / "%j", cluster="slurm")
    try:
        executor.update_parameters(**submitit_options(settings))
    except (NameError, ValueError, TypeError) as error:
        raise ConfigError(f"pool.* cannot be told to Slurm: {last_line(error)}") from error
    return executor
