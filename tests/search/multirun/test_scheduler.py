"""Driving a pool: places stay filled, and a stop is passed on, first softly."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.search.multirun.scheduler import Stop, drive_pool, stoppable
from finetune.search.pools.jobs import Job, Outcome
from finetune.search.pools.local_pool import LocalPool
from finetune.search.pools.slots import build_slots

WAITS = "import time; print('ready', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {WAITS}"


@pytest.fixture
def pool() -> Iterator[LocalPool]:
    """A pool of two slots that would wait long for a job to end."""
    made = LocalPool(build_slots("cpu", jobs_per_device=2), grace=60)
    yield made
    for key in made.running():
        made.cancel(key, hard=True)
    made.close()


class Watcher:
    """Hands out jobs of one kind, and sends this process signals when they are ready."""

    def __init__(self, folder: Path, code: str, number: int, signals: list[int]) -> None:
        """Hand out so many jobs."""
        self.jobs = [Job(str(key), (sys.executable, "-S", "-c", code), folder / f"{key}.log") for key in range(number)]
        self.signals = signals
        self.submitted: list[Job] = []
        self.outcomes: list[Outcome] = []
        self.most = 0

    def next_job(self) -> Job | None:
        """Return the next job."""
        return self.jobs[len(self.submitted)] if len(self.submitted) < len(self.jobs) else None

    def started(self, job: Job, slot: str) -> None:
        """Note a job."""
        self.submitted.append(job)
        self.most = max(self.most, len(self.submitted) - len(self.outcomes))

    def ready(self) -> bool:
        """Return whether both slots have a job that has got so far as to wait."""
        logs = [job.log for job in self.submitted if job.log.exists()]
        return len([log for log in logs if "ready" in log.read_text()]) == 2

    def tick(self) -> None:
        """Send the next signal."""
        if self.signals and self.ready():
            os.kill(os.getpid(), self.signals.pop(0))

    def drive(self, pool: LocalPool, stop: Stop) -> None:
        """Run the jobs."""
        drive_pool(
            pool, stop, next_job=self.next_job, started=self.started, ended=self.outcomes.append, tick=self.tick
        )  # fmt: skip


def test_all_jobs_run_and_never_more_than_there_are_slots(pool: LocalPool, tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, "pass", 5, [])
    watcher.drive(pool, Stop())
    assert sorted(outcome.key for outcome in watcher.outcomes) == list("01234")
    assert {outcome.reason for outcome in watcher.outcomes} == {"done"}
    assert watcher.most == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_jobs_cleanly_and_starts_no_others(
    pool: LocalPool, tmp_path: Path, number: int, code: int
) -> None:
    watcher = Watcher(tmp_path, WAITS, 5, [number])
    with stoppable() as stop:
        watcher.drive(pool, stop)
    assert stop.exit_code == code
    assert [(outcome.code, outcome.reason) for outcome in watcher.outcomes] == [(-signal.SIGINT, "cancelled")] * 2
    assert len(watcher.submitted) == 2


def test_a_second_signal_kills_jobs_that_do_not_end(pool: LocalPool, tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, STUBBORN, 2, [signal.SIGINT, signal.SIGINT])
    with stoppable() as stop:
        watcher.drive(pool, stop)
    assert stop.forced
    assert [(outcome.code, outcome.reason) for outcome in watcher.outcomes] == [(-signal.SIGKILL, "cancelled")] * 2


def test_signals_mean_afterwards_what_they_meant_before() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stoppable():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
