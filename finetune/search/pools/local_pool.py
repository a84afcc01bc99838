"""The pool of this machine: an ordinary process on each device slot, and a new one the moment a slot is free."""

import selectors
import time
from collections.abc import Mapping, Sequence

from finetune.search.pools import supervisor as launched
from finetune.search.pools.jobs import Job, Outcome, end_jobs, inherited_environment
from finetune.search.pools.slots import Slot
from finetune.search.pools.supervised_process import SupervisedJob, start, unstarted


class LocalPool:
    """Runs each job on a slot of this machine.

    Jobs die with the process that made the pool, also where that is killed.

    Attributes:
        size: The number of slots.
    """

    def __init__(self, slots: Sequence[Slot], *, grace: float) -> None:
        """Make a pool; nothing runs yet.

        Args:
            slots: Where jobs run, one on each.
            grace: Seconds between asking a job to end and killing it.
        """
        self.size = len(slots)
        self.grace = grace
        self._idle = list(slots)
        self._slots = {slot.name: slot for slot in slots}
        self._order = {slot.name: number for number, slot in enumerate(slots)}
        self._jobs: dict[str, SupervisedJob] = {}
        self._refused: list[Outcome] = []
        self._selector = selectors.DefaultSelector()

    def free(self) -> int:
        """Return how many slots are idle."""
        return len(self._idle)

    def submit(self, job: Job) -> None:
        """Start a job on the first idle slot.

        Raises:
            RuntimeError: No slot is idle, or a job of this key is running.
        """
        if not self._idle:
            raise RuntimeError(f"Job {job.key} was submitted while all {self.size} slots are taken.")
        if job.key in self.running():
            raise RuntimeError(f"Job {job.key} was submitted while it is running.")
        slot = self._idle[0]
        environment = {**inherited_environment(), **job.environment, **slot.environment}
        try:
            supervised = start(job, slot.name, environment, self.grace)
        except OSError as error:
            self._refused.append(unstarted(job, slot.name, str(error)))
            return
        del self._idle[0]
        self._jobs[job.key] = supervised
        self._selector.register(supervised.channel, selectors.EVENT_READ, supervised)

    def running(self) -> Mapping[str, str]:
        """Return the slot of each job whose outcome has not been told, by its key."""
        refused = {outcome.key: outcome.slot for outcome in self._refused}
        return {**refused, **{key: supervised.slot for key, supervised in self._jobs.items()}}

    def poll(self, timeout: float) -> list[Outcome]:
        """Return the jobs that ended, waiting at most `timeout` seconds for the first; it wakes the moment one ends."""
        ended, self._refused = self._refused, []
        deadline = time.monotonic() + timeout
        while True:
            left = 0.0 if ended else max(0.0, deadline - time.monotonic())
            ready = self._selector.select(left) if self._jobs else []
            ended += [self._release(key.data) for key, _ in ready if key.data.hear()]
            if ended or not self._jobs or left == 0.0:
                return ended

    def cancel(self, key: str, *, hard: bool = False) -> None:
        """Ask a job to end, or kill it with all its processes; its outcome comes with a poll."""
        if key in self._jobs:
            self._jobs[key].cancel(hard=hard)

    def close(self) -> None:
        """End all jobs and wait until they have; those that do not end within the grace are killed."""
        end_jobs(self, self.grace + 1, launched.KILLING + 1)
        self._selector.close()

    def _release(self, supervised: SupervisedJob) -> Outcome:
        self._selector.unregister(supervised.channel)
        del self._jobs[supervised.job.key]
        self._idle.append(self._slots[supervised.slot])
        self._idle.sort(key=lambda slot: self._order[slot.name])
        return supervised.outcome()
