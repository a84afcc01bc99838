"""A job of Slurm's: what runs on the node, and how its end is learnt, also where Slurm has killed it."""

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.search.pools.heartbeat import OwnerWatch
from finetune.search.pools.jobs import CANCELLED, Job, Outcome
from finetune.search.pools.supervised_process import RemoteJob, Signal, unstarted

if TYPE_CHECKING:
    import submitit

LOST = 15.0  # seconds that the result of a job which has ended may take to appear in a shared folder
UNWANTED = 4.0  # the same for a job that was cancelled, by whomever, and how long its node has to kill it
_ANSWER = 20.0  # seconds that Slurm may take to answer; a controller that hangs must not hang the pool
OVER = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT", "GONE",
)  # fmt: skip
WAITING = "slurm:waiting"


@dataclass(frozen=True)
class SlurmRemoteJob:
    """What Slurm runs for a job: a function of no arguments, since that is what submitit sends."""

    remote_job: RemoteJob
    signal_file: Path
    owner: Path
    owner_name: str

    def __call__(self) -> Outcome:
        """Run the job on this node and return its outcome; one whose pool is gone ends, or does not begin."""
        slot = f"slurm:{os.environ.get('SLURMD_NODENAME', os.uname().nodename)}"
        watch = OwnerWatch(self.owner, self.owner_name)
        if watch.is_gone():
            return unstarted(self.remote_job.job, slot, "the pool that sent it is gone")

        def read_signal() -> Signal:
            own = Signal.END if watch.is_gone() else Signal.GO_ON
            return max(self.read_signal(), own, key=lambda signal: signal.value)

        return self.remote_job.run(slot, read_signal)

    def read_signal(self) -> Signal:
        """Return what is wanted of the job, which the pool writes into a file."""
        try:
            return Signal[self.signal_file.read_text().strip()]
        except (OSError, KeyError):
            return Signal.GO_ON


@dataclass
class SlurmJob:
    """A job that Slurm knows.

    Attributes:
        job: The job.
        handle: Slurm's, as submitit knows it.
        signal_file: The file that says what is wanted of it.
        submitted: When, in seconds since the epoch.
        state: What Slurm said of it last.
        node: Where it runs.
        over: When Slurm first said that it has ended, by the monotonic clock.
        cancelled: Whether it was asked to end.
        kill_at: When Slurm is to kill it, by the monotonic clock; None where that is not wanted.
    """

    job: Job
    handle: "submitit.Job[Outcome]"
    signal_file: Path
    submitted: float = field(default_factory=time.time)
    state: str = "PENDING"
    node: str = ""
    over: float | None = None
    cancelled: bool = False
    kill_at: float | None = None

    @property
    def slot(self) -> str:
        """Where it runs."""
        return f"slurm:{self.node}" if self.node else WAITING

    def learn(self, state: str, node: str) -> None:
        """Note what Slurm says of it."""
        self.state = state
        self.node = node or self.node
        if state in OVER and self.over is None:
            self.over = time.monotonic()

    def outcome(self) -> Outcome | None:
        """Return how it ended; None while it has not."""
        if self.handle.paths.result_pickle.exists():
            return self._result()
        if self.over is None or time.monotonic() - self.over < self.patience:
            return None
        return self._lost()

    @property
    def patience(self) -> float:
        """Seconds that its result may take to appear; one that never ran has none."""
        if self.state == "CANCELLED" and not self.node:
            return 0.0
        return UNWANTED if self.cancelled or self.state == "CANCELLED" else LOST

    def cancel(self, *, hard: bool) -> None:
        """Ask it to end, or kill it, through its signal file; Slurm is asked to where it does not run."""
        self.cancelled = True
        with contextlib.suppress(OSError):
            self.signal_file.write_text((Signal.DIE if hard else Signal.END).name)
        if not self.node:
            self.handle.cancel(check=False)
        elif hard and self.kill_at is None:
            self.kill_at = time.monotonic() + UNWANTED

    def on_time(self) -> None:
        """Have Slurm kill it where its node does not answer."""
        if self.kill_at is not None and time.monotonic() >= self.kill_at:
            self.kill_at = float("inf")
            self.handle.cancel(check=False)

    def _result(self) -> Outcome:
        import submitit.core.utils

        try:
            outcome = self.handle.result()
        except submitit.core.utils.UncompletedJobError as error:
            words = [line for line in str(error).splitlines() if line.strip() and not line.startswith("---")]
            return unstarted(self.job, self.slot, next((line for line in words if "Error" in line), words[0]))
        return replace(outcome, reason=CANCELLED) if self.cancelled and outcome.code != 0 else outcome

    def _lost(self) -> Outcome:
        """Return the outcome of a job of which there is no more than Slurm's word."""
        if self.state == "CANCELLED" or self.cancelled:
            reason = CANCELLED
        elif not self.node:
            reason = f"never started: Slurm says {self.state}"
        else:
            reason = f"killed by Slurm, which says {self.state}"
        code = -9 if self.node else None
        return Outcome(self.job.key, code, reason, self.slot, self.submitted, time.time() - self.submitted)


def ask_slurm(identities: list[str]) -> dict[str, tuple[str, str]]:
    """Return the state and the node of each job; nothing where Slurm does not answer.

    squeue is asked, not sacct, since not every cluster keeps accounts; what it has forgotten has ended.
    """
    command = ["squeue", "--noheader", "--states=all", f"--jobs={','.join(identities)}", "--format=%i|%T|%N"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWER)
    except subprocess.TimeoutExpired:
        return {}
    if found.returncode and "Invalid job id" not in found.stderr:
        return {}
    rows = [line.strip().split("|") for line in found.stdout.splitlines() if line.count("|") == 2]
    return {**dict.fromkeys(identities, ("GONE", "")), **{row[0]: (row[1], row[2]) for row in rows}}


def last_line(error: BaseException) -> str:
    """Return the last line that an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
