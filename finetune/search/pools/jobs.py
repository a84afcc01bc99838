"""A job, how it ended, and the calls that every pool answers: submit, poll, cancel."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

DONE, FAILED, CANCELLED = "done", "failed", "cancelled"

_TAIL = 8192  # bytes of a log in which its last words are looked for
SPEAKER = "finetune: "  # begins the lines that are told to the user

# what a launcher of distributed runs leaves behind, which would make a job one of its ranks; and W&B's own service,
# which would end together with the process that started it
FOREIGN_VARIABLES = (
    "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "ROLE_RANK", "WORLD_SIZE",
    "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "ROLE_NAME", "SLURM_NTASKS", "SLURM_NPROCS",
    "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID",
    "PMI_RANK", "PMI_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE",
    "WANDB_SERVICE",
)  # fmt: skip
FOREIGN_PREFIXES = ("TORCHELASTIC_", "SLURM_STEP_")


@dataclass(frozen=True)
class Job:
    """An ordinary process to be run.

    Attributes:
        key: Unique in the pool, such as a trial's number.
        command: The whole command line.
        log: Where its output goes, both streams; the file is made, or added to.
        environment: Variables added to the inherited ones.
        time_limit: Seconds it may take; None for no limit.
    """

    key: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    time_limit: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        key: The job's.
        code: Its exit code, or minus the number of the signal that killed it; None where it never ran.
        reason: done, failed, cancelled, or what killed it or kept it from starting.
        slot: Where it ran, such as gpu:0.
        started: When, in seconds since the epoch.
        seconds: How long it took.
    """

    key: str
    code: int | None
    reason: str
    slot: str
    started: float
    seconds: float


class Pool(Protocol):
    """Runs jobs, so many at a time.

    Attributes:
        size: How many jobs run at a time.
    """

    size: int

    def free(self) -> int:
        """Return how many jobs could be submitted now."""

    def submit(self, job: Job) -> None:
        """Start a job; one that cannot start is among the outcomes of the next poll.

        Raises:
            RuntimeError: No place is free, or a job of this key is running.
        """

    def running(self) -> Mapping[str, str]:
        """Return where each job runs whose outcome no poll has told yet, by its key."""

    def poll(self, timeout: float) -> list[Outcome]:
        """Return the jobs that ended, waiting at most `timeout` seconds for the first."""

    def cancel(self, key: str, *, hard: bool = False) -> None:
        """Ask a job to end, as Ctrl-C does, or kill it with all its processes; its outcome comes with a poll.

        A job that does not end within the pool's grace is killed. One that has ended already is left alone.
        """

    def close(self) -> None:
        """End all jobs, first as Ctrl-C does, after the grace by force; a second call does nothing."""


def end_jobs(pool: Pool, soft: float, hard: float) -> None:
    """End all jobs and wait until they have, so many seconds when they are asked to, and so many when killed."""
    for kill, patience in ((False, soft), (True, hard)):
        for key in list(pool.running()):
            pool.cancel(key, hard=kill)
        end = time.monotonic() + patience
        while pool.running() and time.monotonic() < end:
            pool.poll(end - time.monotonic())


def inherited_environment() -> dict[str, str]:
    """Return this process's variables without those that would tie a job to another process."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in FOREIGN_VARIABLES and not name.startswith(FOREIGN_PREFIXES)
    }


def last_words(log: Path) -> str:
    """Return what a job said last: the last line of the program's own, or else of all; empty where it said nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line.removeprefix(SPEAKER) for line in lines if line.startswith(SPEAKER)]
    return (own or lines or [""])[-1]
