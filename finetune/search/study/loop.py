"""Trial loop: which trial comes next in a pool, and what the study is told when one has ended."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.search.multirun.scheduler import Stop, drive_pool
from finetune.search.pools.jobs import CANCELLED, Job, Outcome, Pool
from finetune.search.study.study import Search, TrialResult, TrialSpec
from finetune.search.study.trials import TrialJobs

log = logging.getLogger(__name__)

_PATIENCE = 60.0  # seconds that a trial of an earlier process may take to end on another machine
OnFailure = Literal["continue", "stop", "retry"]


@dataclass(frozen=True)
class FailurePolicy:
    """When a search ends and what a failure does.

    Attributes:
        on_failure: continue with other trials, stop, or retry the same one.
        retries: Of one trial.
        timeout: Seconds after which no new trial starts; None for no limit.
    """

    on_failure: OnFailure = "continue"
    retries: int = 1
    timeout: float | None = None


class TrialLoop:
    """Runs the trials of a search through a pool.

    Attributes:
        live: The trials that run, by their key.
        stopped: Whether a failure has ended the search.
    """

    def __init__(
        self,
        search: Search,
        jobs: TrialJobs,
        pool: Pool,
        policy: FailurePolicy,
        *,
        on_start: Callable[[TrialSpec, str], None],
        on_end: Callable[[TrialSpec, TrialResult], None],
        tick: Callable[[], None],
    ) -> None:
        """Run nothing yet.

        Args:
            search: Says what to try.
            jobs: Makes jobs of it.
            pool: Runs them.
            policy: When to end.
            on_start: Told of each trial that has been started, and of its slot.
            on_end: Told of each trial that has ended.
            tick: Called several times a second.
        """
        self.search = search
        self.jobs = jobs
        self.pool = pool
        self.policy = policy
        self.on_start = on_start
        self.on_end = on_end
        self.tick = tick
        self.again: deque[TrialSpec] = deque()
        self.live: dict[str, TrialSpec] = {}
        self.failures: dict[int, int] = {}
        self.stopped = False
        self.deadline = float("inf") if policy.timeout is None else time.monotonic() + policy.timeout

    def run(self, left: Sequence[TrialSpec], stop: Stop) -> None:
        """Run the trials that an earlier process left, then new ones, until there are as many as there are to be.

        A trial of an earlier process that has come to its end meanwhile is not run again; one that still runs on
        another machine notices that its pool is gone, and its end is waited for.
        """
        self.await_ends(left, stop)
        for asked in left:
            result = self.jobs.result(asked)
            if result is None:
                self.again.append(asked)
            else:
                self.search.tell(asked.number, result)
        drive_pool(self.pool, stop, next_job=self.next_job, started=self.started, ended=self.settle, tick=self.tick)

    def await_ends(self, left: Sequence[TrialSpec], stop: Stop) -> None:
        """Wait until the trials that another machine still runs have ended, but not for a machine that is gone."""
        deadline = time.monotonic() + _PATIENCE
        live = [asked.number for asked in left if self.jobs.lives(asked)]
        if live:
            log.info("Waiting for trials %s, which still run on another machine.", ", ".join(map(str, live)))
        while not stop.asked and time.monotonic() < deadline and any(self.jobs.lives(asked) for asked in left):
            self.tick()
            time.sleep(0.2)

    def next_job(self) -> Job | None:
        """Return the next trial's job; None where no new one is to start."""
        if self.stopped or time.monotonic() >= self.deadline:
            return None
        asked = self.again.popleft() if self.again else self.search.ask()
        if asked is None:
            return None
        self.live[str(asked.number)] = asked
        return self.jobs.job(asked, self.search.take_over(asked.number))

    def started(self, job: Job, slot: str) -> None:
        """Tell the listener."""
        self.on_start(self.live[job.key], slot)

    def settle(self, outcome: Outcome) -> None:
        """Tell the study how a trial ended, or run it again."""
        asked = self.live.pop(outcome.key)
        self.search.note(asked.number, slot=outcome.slot, seconds=round(outcome.seconds, 3))
        result = self.jobs.result(asked)
        if result is None and outcome.reason == CANCELLED:
            self.on_end(asked, TrialResult("cancelled"))  # it stays in the study as running, for whoever resumes
            return
        result = result or self.jobs.failure(asked, outcome)
        if result.state == "failed" and self.retried(asked, result):
            self.again.append(asked)
        else:
            self.search.tell(asked.number, result)
        self.on_end(asked, result)
        if result.state == "failed" and self.policy.on_failure == "stop" and not self.stopped:
            self.stopped = True
            for key in list(self.live):
                self.pool.cancel(key)

    def retried(self, asked: TrialSpec, result: TrialResult) -> bool:
        """Return whether a trial that has failed is to be run again."""
        times = self.failures.get(asked.number, 0)
        self.failures[asked.number] = times + 1
        if self.policy.on_failure != "retry" or times >= self.policy.retries:
            return False
        log.warning("Trial %d failed (%s) and is run again.", asked.number, result.cause)
        return True
