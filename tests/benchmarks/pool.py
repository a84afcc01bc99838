"""How well the pool keeps its slots busy: 12 jobs of very uneven length on 2 CPU slots.

    python tests/benchmarks/pool.py [SECONDS]

The jobs wait, so that what is measured is the pool and not the machine: one takes SECONDS (12 without a word), and the
others down to a twenty-fourth of it. The busy share is the time that jobs ran over the time that their slots were
there, from the first start to the last end. The share of a batch barrier, where two jobs start together and the next
two when both have ended, is computed from the same measured durations.
"""

import sys
import tempfile
from pathlib import Path

from finetune.search.multirun.scheduler import drive_pool, stoppable
from finetune.search.pools.jobs import Job, Outcome
from finetune.search.pools.local_pool import LocalPool
from finetune.search.pools.slots import build_slots

SLOTS = 2
# of the longest, in an order that leaves nothing to luck: the long ones are neither all first nor all last
LENGTHS = (0.25, 1.0, 0.0417, 0.5, 0.0833, 0.0417, 0.75, 0.125, 0.0417, 0.375, 0.0833, 0.1667)


def run(longest: float, folder: Path) -> list[Outcome]:
    """Run the jobs and return how they ended."""
    code = "import sys, time; time.sleep(float(sys.argv[1]))"
    jobs = [
        Job(str(number), (sys.executable, "-S", "-c", code, str(length * longest)), folder / f"{number}.log")
        for number, length in enumerate(LENGTHS)
    ]
    waiting, outcomes = iter(jobs), list[Outcome]()
    pool = LocalPool(build_slots("cpu", jobs_per_device=SLOTS), grace=1)
    with stoppable() as stop:
        drive_pool(
            pool,
            stop,
            next_job=lambda: next(waiting, None),
            started=lambda job, slot: None,
            ended=outcomes.append,
            tick=lambda: None,
        )
    pool.close()
    return outcomes


def busy_share(outcomes: list[Outcome]) -> float:
    """Return how much of their time the slots were busy."""
    first = min(outcome.started for outcome in outcomes)
    last = max(outcome.started + outcome.seconds for outcome in outcomes)
    return sum(outcome.seconds for outcome in outcomes) / (SLOTS * (last - first))


def barrier_share(seconds: list[float]) -> float:
    """Return the busy share if each pair of jobs had waited for its longer one."""
    batches = [seconds[first : first + SLOTS] for first in range(0, len(seconds), SLOTS)]
    return sum(seconds) / sum(SLOTS * max(batch) for batch in batches)


def main() -> None:
    """Print both shares."""
    longest = float(sys.argv[1]) if len(sys.argv) > 1 else 12.0
    with tempfile.TemporaryDirectory() as name:
        outcomes = run(longest, Path(name))
    in_order = [outcome.seconds for outcome in sorted(outcomes, key=lambda outcome: int(outcome.key))]
    print(f"{len(outcomes)} jobs of {min(in_order):.1f} to {max(in_order):.1f} s on {SLOTS} slots")
    print(f"busy share of the slots      {busy_share(outcomes):.3f}")
    print(f"with a barrier for each pair {barrier_share(in_order):.3f}, computed from the same durations")


if __name__ == "__main__":
    main()
