"""A job as a process of this machine, under a supervisor that leaves nothing behind."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from finetune.search.pools import supervisor as launched
from finetune.search.pools.jobs import CANCELLED, DONE, FAILED, Job, Outcome, inherited_environment
from finetune.search.pools.slots import THREADS

SUPERVISOR = Path(__file__).with_name("supervisor.py")


class Signal(Enum):
    """What is wanted of a job that runs."""

    GO_ON = 0
    END = 1
    DIE = 2


@dataclass
class SupervisedJob:
    """A job that has been started.

    Attributes:
        job: What was started.
        slot: Where it runs.
        process: The supervisor.
        channel: Words go in, lines come out; its end on either side means that the other is gone.
        started: When, in seconds since the epoch.
        cancelled: Whether it has been asked to end.
        said: What the supervisor has said so far.
    """

    job: Job
    slot: str
    process: "subprocess.Popen[bytes]"
    channel: socket.socket
    started: float
    cancelled: bool = False
    said: bytes = b""

    def cancel(self, *, hard: bool) -> None:
        """Ask the job to end, or have it killed."""
        self.cancelled = True
        with contextlib.suppress(OSError):  # it has just ended
            self.channel.send(launched.HARD if hard else launched.SOFT)

    def hear(self) -> bool:
        """Read what the supervisor says, and return whether it has ended; call it when there is something to read."""
        try:
            text = self.channel.recv(4096)
        except ConnectionResetError:
            text = b""
        self.said += text
        return text == b""

    def outcome(self) -> Outcome:
        """Return how the job ended, once the supervisor has."""
        self.process.wait()
        self.channel.close()
        lines = dict(line.split(" ", 1) for line in self.said.decode(errors="replace").splitlines())
        seconds = time.time() - self.started
        if "refused" in lines:
            return unstarted(self.job, self.slot, lines["refused"])
        exceeded = "exceeded" in lines
        if not exceeded and "ended" not in lines:  # the supervisor itself was killed, and its job with it
            with contextlib.suppress(OSError, KeyError):
                os.killpg(int(lines["pid"]), signal.SIGKILL)
        code = int(lines.get("exceeded") or lines.get("ended") or -signal.SIGKILL)
        reason = _outcome_line(code, self.job.time_limit if exceeded else None, cancelled=self.cancelled)
        return Outcome(self.job.key, code, reason, self.slot, self.started, seconds)


def _outcome_line(code: int, exceeded: float | None, *, cancelled: bool) -> str:
    """Return how a job ended, in words.

    Args:
        code: Its exit code, or minus the number of a signal.
        exceeded: The time limit that it ran into; None for none.
        cancelled: Whether it was asked to end.
    """
    if code == 0:
        return DONE
    if exceeded is not None:
        return f"exceeded its time limit of {exceeded:g} s"
    if cancelled:
        return CANCELLED
    return f"killed by signal {signal.Signals(-code).name}" if code < 0 else FAILED


def unstarted(job: Job, slot: str, cause: str) -> Outcome:
    """Return the outcome of a job that never ran."""
    return Outcome(job.key, None, f"never started: {cause}", slot, time.time(), 0.0)


def start(job: Job, slot: str, environment: Mapping[str, str], grace: float) -> SupervisedJob:
    """Start a job in a session of its own.

    Args:
        job: The job.
        slot: Where it runs, for the record.
        environment: All its variables.
        grace: Seconds between asking it to end and killing it.

    Raises:
        OSError: Its log cannot be written, or no process can be made.
    """
    limit = "inf" if job.time_limit is None else str(job.time_limit)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    ours, theirs = socket.socketpair()
    with theirs, job.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SUPERVISOR), limit, str(grace), *job.command],
            stdin=theirs.fileno(),
            stdout=log,
            stderr=log,
            env=dict(environment),
            start_new_session=True,
        )
    return SupervisedJob(job, slot, process, ours, time.time())


@dataclass(frozen=True)
class RemoteJob:
    """A job as it is sent to another machine, where a task of a cluster's runs it.

    Attributes:
        job: The job.
        folder: The folder that it runs in.
        threads: Of the job's libraries; None for their own choice.
        grace: Seconds between asking it to end and killing it.
    """

    job: Job
    folder: str
    threads: int | None
    grace: float

    def run(self, slot: str, read_signal: Callable[[], Signal], interval: float = 0.5) -> Outcome:
        """Run the job to its end and return its outcome.

        Args:
            slot: Where this is, for the record.
            read_signal: Returns what is wanted of the job by now; it is called again and again.
            interval: Seconds between two calls.
        """
        os.chdir(self.folder)
        threads = {} if self.threads is None else dict.fromkeys(THREADS, str(self.threads))
        environment = {**inherited_environment(), **threads, **self.job.environment}
        try:
            supervised = start(self.job, slot, environment, self.grace)
        except OSError as error:
            return unstarted(self.job, slot, str(error))
        granted = Signal.GO_ON
        while not (select.select([supervised.channel], [], [], interval)[0] and supervised.hear()):
            wanted = read_signal()
            if wanted.value > granted.value:
                supervised.cancel(hard=wanted is Signal.DIE)
                granted = wanted
        return supervised.outcome()
