"""Scheduler of a pool: free places are filled, what ended is handed on, and Ctrl-C ends all of it cleanly."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from finetune.search.pools.jobs import Job, Outcome, Pool

_INTERVAL = 0.25  # seconds between two looks at signals and at the screen while no job ends


class Stop:
    """Whether the user wants to stop.

    Attributes:
        signals: The signals that have come, in order.
    """

    def __init__(self) -> None:
        """Nothing has come yet."""
        self.signals: list[int] = []

    @property
    def asked(self) -> bool:
        """Whether jobs are to end cleanly, and no others are to start."""
        return bool(self.signals)

    @property
    def forced(self) -> bool:
        """Whether jobs are to end at once."""
        return len(self.signals) > 1

    @property
    def exit_code(self) -> int:
        """The exit code that says so: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signals[0]


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Note Ctrl-C and SIGTERM instead of breaking off; the first asks jobs to end, the second ends them at once."""
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        stop.signals.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield stop
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def drive_pool(
    pool: Pool,
    stop: Stop,
    *,
    next_job: Callable[[], Job | None],
    started: Callable[[Job, str], None],
    ended: Callable[[Outcome], None],
    tick: Callable[[], None],
) -> None:
    """Run jobs until there are no more, or until a stop is asked for, and all that started have ended.

    Args:
        pool: Where they run.
        stop: Whether to stop.
        next_job: Returns the job to start next, None for none at the moment; it is called while a place is free, and
            no more once nothing runs and it has returned None.
        started: Told of each job that was submitted, and of its slot.
        ended: Told of each outcome.
        tick: Called several times a second.
    """
    passed_on = 0
    while True:
        while not stop.asked and pool.free():
            job = next_job()
            if job is None:
                break
            pool.submit(job)
            started(job, pool.running()[job.key])
        tick()
        if not pool.running():
            return
        for outcome in pool.poll(_INTERVAL):
            ended(outcome)
        if len(stop.signals) > passed_on:
            passed_on = len(stop.signals)
            for key in pool.running():
                pool.cancel(key, hard=stop.forced)
