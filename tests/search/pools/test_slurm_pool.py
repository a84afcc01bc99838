"""The pool of a Slurm cluster, against a real one of two nodes: the calls of the local pool, and the same ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import light_sweep
import pytest
from slurm_cluster import slurm

from finetune.config.settings.search_groups import SlurmSettings
from finetune.runs.run import Run
from finetune.search.multirun.scheduler import Stop, drive_pool
from finetune.search.pools.jobs import Job, Outcome
from finetune.search.pools.slurm_pool import SlurmPool

pytestmark = pytest.mark.slow
pytest.importorskip("submitit")

WAITS = "import time; print('ready', flush=True); time.sleep(120)"
STUBBORN = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {WAITS}"
CLEAN = f"""
try:
    {WAITS}
except KeyboardInterrupt:
    print("cleaned up")
    raise SystemExit(130)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster that all tests of this file share."""
    with slurm(tmp_path_factory.mktemp("slurm")) as conf:
        yield conf


@pytest.fixture
def pool(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmPool]:
    """A pool of three jobs of one core and one GPU each."""
    monkeypatch.setenv("SLURM_CONF", str(cluster))
    made = SlurmPool(settings(), tmp_path / "pool")
    yield made
    made.close()


def settings(**changed: Any) -> SlurmSettings:
    """Return what the tests ask of Slurm."""
    values: dict[str, Any] = {
        "jobs": 3, "partition": "p", "devices_per_job": 1, "cpus": 1, "minutes": 10, "memory_gb": None, "setup": (),
        "parameters": {}, "grace": 2.0,
    }  # fmt: skip
    return SlurmSettings(kind="slurm", time_limit=None, **{**values, **changed})


def python(key: str, code: str, folder: Path, **options: Any) -> Job:
    """Return a job that runs a few lines of Python."""
    return Job(key, (sys.executable, "-S", "-c", code), folder / f"{key}.log", **options)


def finished(pool: SlurmPool, seconds: float = 60.0) -> dict[str, Outcome]:
    """Return the outcomes of all jobs."""
    outcomes: dict[str, Outcome] = {}
    end = time.monotonic() + seconds
    while pool.running():
        assert time.monotonic() < end, f"still there: {pool.running()}"
        outcomes |= {outcome.key: outcome for outcome in pool.poll(1.0)}
    return outcomes


def wait_for(pool: SlurmPool, condition: Callable[[], Any], seconds: float = 40.0) -> None:
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


def test_jobs_run_on_both_nodes_with_their_own_gpus_and_without_a_barrier(pool: SlurmPool, tmp_path: Path) -> None:
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ.get('SLURM_NTASKS'), flush=True)\n"
    files = [tmp_path / f"{key}.seen" for key in range(6)]
    jobs = [python("0", code + LONG.format(str(files[5])), tmp_path)]
    jobs += [python(str(key), code + SHORT.format(str(files[key])), tmp_path) for key in range(1, 6)]
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
    assert {outcome.slot for outcome in outcomes} == {"slurm:n0", "slurm:n1"}
    assert [outcome.key for outcome in outcomes].index("0") >= 4, "no job waited for the long one"
    logs = [(tmp_path / f"{key}.log").read_text().split() for key in range(6)]
    assert {words[1] for words in logs} == {"None"}, "no job takes itself for a task of Slurm's"
    assert {words[0] for words in logs} <= {"0", "1"}


def test_every_end_of_a_job_is_told(pool: SlurmPool, tmp_path: Path) -> None:
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
    assert pool.free() == 3


def test_a_cancelled_job_ends_as_after_ctrl_c_or_is_killed(pool: SlurmPool, tmp_path: Path) -> None:
    pool.submit(python("clean", CLEAN, tmp_path))
    pool.submit(python("stubborn", STUBBORN, tmp_path))
    pool.submit(python("other", WAITS, tmp_path))
    for key in ("clean", "stubborn", "other"):
        wait_for(pool, says(tmp_path, key, "ready"))
    wait_for(pool, lambda: "slurm:waiting" not in pool.running().values())
    pool.cancel("clean")
    pool.cancel("stubborn", hard=True)
    scancel(pool, "other")
    outcomes = finished(pool)
    assert (outcomes["clean"].code, outcomes["clean"].reason) == (130, "cancelled")
    assert says(tmp_path, "clean", "cleaned up")()
    assert (outcomes["stubborn"].code, outcomes["stubborn"].reason) == (-9, "cancelled")
    assert outcomes["other"].reason != "done"


def scancel(pool: SlurmPool, key: str) -> None:
    """Cancel a job as somebody else would, without the pool."""
    subprocess.run(["scancel", str(pool._jobs[key].handle.job_id)], check=True)


def test_a_job_that_waits_is_taken_back_at_once(pool: SlurmPool, tmp_path: Path) -> None:
    everything = SlurmPool(settings(devices_per_job=2, cpus=2), tmp_path / "big")
    for key in ("a", "b", "c"):
        everything.submit(python(key, WAITS, tmp_path))
    wait_for(everything, lambda: list(everything.running().values()).count("slurm:waiting") == 1)
    (waiting,) = (key for key, slot in everything.running().items() if slot == "slurm:waiting")
    everything.cancel(waiting)
    (outcome,) = everything.poll(20)
    assert (outcome.key, outcome.code, outcome.reason) == (waiting, None, "cancelled")
    everything.close()
    assert not everything.running()


def test_what_slurm_refuses_never_started(pool: SlurmPool, tmp_path: Path) -> None:
    wrong = SlurmPool(settings(partition="nowhere"), tmp_path / "wrong")
    wrong.submit(python("job", "", tmp_path))
    outcome = finished(wrong)["job"]
    assert outcome.code is None
    assert outcome.reason.startswith("never started: ")
    assert "partition" in outcome.reason


def test_jobs_whose_pool_is_gone_end_when_another_takes_over(cluster: Path, pool: SlurmPool, tmp_path: Path) -> None:
    pool.submit(python("left", CLEAN, tmp_path))
    wait_for(pool, says(tmp_path, "left", "ready"))
    later = SlurmPool(settings(), tmp_path / "pool")
    wait_for(later, says(tmp_path, "left", "cleaned up"))
    assert finished(pool)["left"].code == 130


def test_a_sweep_on_the_cluster_runs_each_trial_once_also_after_kill_9(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(cluster))
    words = ["pool=slurm", "pool.partition=p", "pool.devices_per_job=0", "pool.cpus=1", "pool.jobs=2", "sweep.trials=4",
             "sweep=random", "sweep.folder=found", "seed=range(20,90)"]  # fmt: skip
    started = light_sweep.start(*words, folder=tmp_path, LIGHT_SECONDS="4")
    light_sweep.stopped(started, signal.SIGKILL, lambda: len(light_sweep.ledger(tmp_path)) >= 2)
    (folder,) = (tmp_path / "found").glob("*/*")
    code, said = light_sweep.sweep(f"resume={folder}", folder=tmp_path, LIGHT_SECONDS="0")
    assert code == 0, said
    noted = light_sweep.ledger(tmp_path)
    assert sorted(line for line in noted if line.startswith("end")) == [f"end {number}" for number in range(4)], said


def test_a_multirun_on_the_cluster_leaves_finished_runs(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(cluster))
    arguments = [
        "-m", "pool=slurm", "pool.partition=p", "pool.devices_per_job=0", "pool.cpus=1", "pool.minutes=10", "seed=0,1",
        "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "trainer=cpu", "trainer.threads=1",
        "bootstrap=20", "debug=quick", "strategy=full", "logger=none",
    ]  # fmt: skip
    found = subprocess.run(
        [sys.executable, "-m", "finetune", *arguments], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    runs = Run.all(tmp_path / "runs")
    assert [run.status for run in runs] == ["finished"] * 2
    assert {run.config["seed"] for run in runs} == {0, 1}
