"""A job of Slurm's: what runs on the node, and how its end is learnt, also where Slurm has killed it.

It decides what counts as an end and what it is called; when Slurm is asked, and what for, is the pool's.
"""

import os
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.search.jobs import CANCELLED, Job, Outcome
from finetune.search.processes import Errand, Wish, unstarted

if TYPE_CHECKING:
    import submitit

LOST = 15.0  # seconds that the result of a job which has ended may take to appear in a shared folder
OVER = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT", "GONE",
)  # fmt: skip
WAITING = "slurm:waiting"


@dataclass(frozen=True)
class SlurmErrand:
    """What Slurm runs for a job: a function of no arguments, since that is what submitit sends."""

    errand: Errand
    wishes: Path

    def __call__(self) -> Outcome:
        """Run the job on this node and return its outcome."""
        return self.errand.run(f"slurm:{os.environ.get('SLURMD_NODENAME', os.uname().nodename)}", self.wish)

    def wish(self) -> Wish:
        """Return what is wanted of the job, which the pool writes into a file."""
        try:
            return Wish[self.wishes.read_text().strip()]
        except (OSError, KeyError):
            return Wish.GO_ON


@dataclass
class Submitted:
    """A job that Slurm knows.

    Attributes:
        job: The job.
        handle: Slurm's, as submitit knows it.
        wishes: The file that says what is wanted of it.
        submitted: When, in seconds since the epoch.
        state: What Slurm said of it last.
        node: Where it runs.
        over: When Slurm first said that it has ended, by the monotonic clock.
        cancelled: Whether it was asked to end.
    """

    job: Job
    handle: "submitit.Job[Outcome]"
    wishes: Path
    submitted: float = field(default_factory=time.time)
    state: str = "PENDING"
    node: str = ""
    over: float | None = None
    cancelled: bool = False

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
        taken_back = self.state == "CANCELLED" and not self.node
        if self.over is None or (not taken_back and time.monotonic() - self.over < LOST):
            return None
        return self._lost()

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
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode and "Invalid job id" not in found.stderr:
        return {}
    rows = [line.strip().split("|") for line in found.stdout.splitlines() if line.count("|") == 2]
    return {**dict.fromkeys(identities, ("GONE", "")), **{row[0]: (row[1], row[2]) for row in rows}}


def last_line(error: BaseException) -> str:
    """Return the last line that an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
