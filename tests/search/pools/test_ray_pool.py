"""The pool of a Ray cluster, against a real one of two nodes: the calls of the local pool, and the same ends."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.config.settings.search_groups import RaySettings
from finetune.errors import ConfigError
from finetune.search.multirun.scheduler import Stop, drive_pool
from finetune.search.pools.jobs import Job, Outcome
from finetune.search.pools.ray_pool import RayPool

pytestmark = pytest.mark.slow
pytest.importorskip("ray")

WAITS = "import time; print('ready', flush=True); time.sleep(120)"
STUBBORN = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {WAITS}"
CLEAN = f"""
try:
    {WAITS}
except KeyboardInterrupt:
    print("cleaned up")
    raise SystemExit(130)
"""


def start_node(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start a node of two cores."""
    program = Path(sys.executable).with_name("ray")
    command = [sys.executable, str(program), "start", "--block", "--num-cpus=2", "--num-gpus=0", *arguments]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with (folder / "nodes.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster that all tests of this file share."""
    folder = tmp_path_factory.mktemp("ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    head = ["--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    processes = [start_node(folder, *head)]
    time.sleep(5)
    processes.append(start_node(folder, f"--address={address}", "--node-ip-address=127.0.0.1"))
    yield address
    for process in reversed(processes):
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture
def pool(address: str) -> Iterator[RayPool]:
    """A pool of three jobs of one core each, once both nodes are there."""
    made = RayPool(RaySettings(address, 3, 0, 1, {}, grace=2.0))
    end = time.monotonic() + 60
    while made.ray.cluster_resources().get("CPU") != 4:
        assert time.monotonic() < end, made.ray.cluster_resources()
        time.sleep(0.5)
    yield made
    made.close()


def python(key: str, code: str, folder: Path, **options: Any) -> Job:
    """Return a job that runs a few lines of Python."""
    return Job(key, (sys.executable, "-S", "-c", code), folder / f"{key}.log", **options)


def finished(pool: RayPool, seconds: float = 60.0) -> dict[str, Outcome]:
    """Return the outcomes of all jobs."""
    outcomes: dict[str, Outcome] = {}
    end = time.monotonic() + seconds
    while pool.running():
        assert time.monotonic() < end, f"still there: {pool.running()}"
        outcomes |= {outcome.key: outcome for outcome in pool.poll(1.0)}
    return outcomes


def wait_for(pool: RayPool, condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait until a function returns something true; no job may end meanwhile."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert pool.poll(0.2) == []


def says(folder: Path, key: str, text: str) -> Callable[[], bool]:
    """Return whether a job's log holds a text."""
    return lambda: (folder / f"{key}.log").exists() and text in (folder / f"{key}.log").read_text()


# the long job ends when the last of the short ones has run, which it never does if they wait for it
LONG = "import os, time\nwhile not os.path.exists({!r}): time.sleep(0.05)"
SHORT = "import time; time.sleep(1); open({!r}, 'a')"


def test_jobs_run_on_both_nodes_without_a_barrier(pool: RayPool, tmp_path: Path) -> None:
    files = [tmp_path / f"{key}.seen" for key in range(6)]
    jobs = [python("0", LONG.format(str(files[5])), tmp_path)]
    jobs += [python(str(key), SHORT.format(str(files[key])), tmp_path) for key in range(1, 6)]
    waiting, outcomes = iter(jobs), list[Outcome]()
    drive_pool(
        pool,
        Stop(),
        next_job=lambda: next(waiting, None),
        started=lambda job, slot: None,
        ended=outcomes.append,
        tick=lambda: None,
    )
    assert {outcome.reason for outcome in outcomes} == {"done"}
    assert len({outcome.slot for outcome in outcomes}) == 2
    assert [outcome.key for outcome in outcomes].index("0") >= 4, "no job waited for the long one"


def test_every_end_of_a_job_is_told(pool: RayPool, tmp_path: Path) -> None:
    pool.submit(python("failed", "raise SystemExit(3)", tmp_path))
    pool.submit(python("killed", "import os; os.kill(os.getpid(), 9)", tmp_path))
    pool.submit(python("slow", WAITS, tmp_path, time_limit=1.0))
    assert not pool.free()
    outcomes = finished(pool)
    assert {key: (outcome.code, outcome.reason) for key, outcome in outcomes.items()} == {
        "failed": (3, "failed"),
        "killed": (-9, "killed by signal SIGKILL"),
        "slow": (-2, "exceeded its time limit of 1 s"),
    }


def test_jobs_are_cancelled_softly_hard_and_before_they_run(pool: RayPool, tmp_path: Path) -> None:
    pool.submit(python("clean", CLEAN, tmp_path))
    pool.submit(python("stubborn", STUBBORN, tmp_path))
    for key in ("clean", "stubborn"):
        wait_for(pool, says(tmp_path, key, "ready"))
    greedy = RaySettings("", 3, 0, 64, {}, grace=2.0)
    settings, pool.settings = pool.settings, greedy
    pool.submit(python("waiting", WAITS, tmp_path))
    pool.settings = settings
    pool.cancel("clean")
    pool.cancel("stubborn", hard=True)
    pool.cancel("waiting")
    outcomes = finished(pool)
    assert {key: (outcome.code, outcome.reason) for key, outcome in outcomes.items()} == {
        "clean": (130, "cancelled"),
        "stubborn": (-9, "cancelled"),
        "waiting": (None, "cancelled"),
    }
    assert says(tmp_path, "clean", "cleaned up")()


def test_a_cluster_that_is_not_there_is_told_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="ray start --head"):
        RayPool(RaySettings("127.0.0.1:9", 1, 0, 1, {}, grace=1.0))
