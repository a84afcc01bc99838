"""The loop of a search: a slot that is free gets the next trial, and a trial that has ended is told to the study.

It decides in which order trials run, what happens after a failure, and how an interruption leaves the study; what a
trial is is left to `trials`, and where it runs to the pool.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from finetune.errors import ConfigError, nearest
from finetune.search.interruption import Interruption
from finetune.search.jobs import Outcome, Pool
from finetune.search.study import Asked, Result, Search
from finetune.search.trials import TrialJobs

log = logging.getLogger(__name__)

OnFailure = Literal["continue", "stop", "retry"]
# between two looks at the clock and at the screen
SECONDS = 0.5


@dataclass(frozen=True)
class Policy:
    """When a search ends and what a failure does.

    Attributes:
        on_failure: continue with other trials, stop, or retry the same one.
        retries: Of one trial.
        timeout: Seconds after which no new trial starts; None for no limit.
    """

    on_failure: OnFailure = "continue"
    retries: int = 1
    timeout: float | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: One makes no sense.
        """
        choices = get_args(OnFailure)
        if self.on_failure not in choices:
            raise ConfigError(
                f"sweep.on_failure={self.on_failure} is not one of {', '.join(choices)}."
                f"{nearest(self.on_failure, choices)}"
            )
        if self.retries < 0:
            raise ConfigError(f"sweep.retries={self.retries} must be a whole number of 0 or more.")
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigError(f"sweep.timeout={self.timeout} must be a number of seconds above 0.")


class Loop:
    """Runs the trials of a search through a pool.

    Attributes:
        stopped: Whether a failure has ended the search.
    """

    def __init__(
        self,
        search: Search,
        jobs: TrialJobs,
        pool: Pool,
        policy: Policy,
        stop: Interruption,
        *,
        on_end: Callable[[Asked, Result], None],
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Run nothing yet.

        Args:
            search: Says what to try.
            jobs: Makes jobs of it.
            pool: Runs them.
            policy: When to end.
            stop: Says when the user or the system wants it to end.
            on_end: Told of each trial that has ended.
            on_wait: Called whenever there is time, several times a second.
        """
        self.search = search
        self.jobs = jobs
        self.pool = pool
        self.policy = policy
        self.stop = stop
        self.on_end = on_end
        self.on_wait = on_wait
        self.again: deque[Asked] = deque()
        self.live: dict[str, Asked] = {}
        self.failures: dict[int, int] = {}
        self.stopped = False
        self.deadline = float("inf") if policy.timeout is None else time.monotonic() + policy.timeout

    def run(self, left: list[Asked]) -> None:
        """Run the trials that an earlier process left, then new ones, until there are as many as there are to be."""
        for asked in left:
            result = self.jobs.result(asked)
            if result is None:
                self.again.append(asked)
            else:
                self.end(asked, result)
        while self.fill() or self.pool.running():
            self.poll()
            if self.stop.times:
                self.drain()
                return

    def poll(self) -> None:
        """Settle what has ended, waiting a moment for the first."""
        for outcome in self.pool.poll(SECONDS):
            self.settle(outcome)
        self.on_wait()

    def fill(self) -> int:
        """Start trials on all free slots, and return how many."""
        started = 0
        while self.pool.free() and not self.over():
            asked = self.again.popleft() if self.again else self.search.ask()
            if asked is None:
                break
            self.start(asked)
            started += 1
        return started

    def over(self) -> bool:
        """Return whether no new trial is to start."""
        return self.stopped or self.stop.times > 0 or time.monotonic() >= self.deadline

    def start(self, asked: Asked) -> None:
        """Start a trial."""
        attempts = self.search.take_over(asked.number)
        self.live[str(asked.number)] = asked
        self.pool.submit(self.jobs.job(asked, attempts))

    def settle(self, outcome: Outcome) -> None:
        """Tell the study how a trial ended, or run it again."""
        asked = self.live.pop(outcome.key)
        self.search.note(asked.number, slot=outcome.slot, seconds=round(outcome.seconds, 3))
        result = self.jobs.result(asked)
        if result is None and outcome.reason == "cancelled":
            return  # it stays in the study as running, for whoever resumes
        result = result or self.jobs.failure(asked, outcome)
        if result.state == "failed" and self.retried(asked, result):
            self.again.append(asked)
            return
        self.end(asked, result)
        if result.state == "failed" and self.policy.on_failure == "stop" and not self.stopped:
            self.stopped = True
            for key in list(self.live):
                self.pool.cancel(key)  # each stays in the study, for a resume

    def retried(self, asked: Asked, result: Result) -> bool:
        """Return whether a trial that has failed is to be run again."""
        times = self.failures.get(asked.number, 0)
        self.failures[asked.number] = times + 1
        if self.policy.on_failure != "retry" or times >= self.policy.retries:
            return False
        log.warning("Trial %d failed (%s) and is run again.", asked.number, result.cause)
        return True

    def end(self, asked: Asked, result: Result) -> None:
        """Tell the study and the listener."""
        self.search.tell(asked.number, result)
        self.on_end(asked, result)

    def drain(self) -> None:
        """Ask all jobs to end and wait until they have; a second interruption kills them."""
        log.warning("Ending %d trials; a resume goes on with them. Ctrl-C again kills them.", len(self.live))
        asked = 0
        while self.pool.running():
            if asked < min(self.stop.times, 2):
                asked += 1
                for key in self.pool.running():
                    self.pool.cancel(key, hard=asked == 2)
            self.poll()
