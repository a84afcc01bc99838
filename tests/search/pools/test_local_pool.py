"""The pool of this machine: slots are refilled at once, every end is told, and no process is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.search.pools.jobs import Job, Outcome
from finetune.search.pools.local_pool import LocalPool
from finetune.search.pools.slots import build_slots

# a job that makes a child, and a child of a session of its own, says who they are, and stays
FAMILY = """
import os, subprocess, sys, time
stay = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
pids = [os.getpid(), subprocess.Popen(stay).pid, subprocess.Popen(stay, start_new_session=True).pid]
middle = [sys.executable, "-S", "-c", f"import subprocess; print(subprocess.Popen({stay}, stdout=-3).pid)"]
pids.append(int(subprocess.check_output(middle, text=True)))  # its own parent is gone
with open(sys.argv[1] + ".part", "w") as file:
    file.write(" ".join(map(str, pids)))
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(60)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


@pytest.fixture
def pool() -> Iterator[LocalPool]:
    """A pool of two slots that does not wait long."""
    made = LocalPool(build_slots("cpu", jobs_per_device=2), grace=0.5)
    yield made
    made.close()


def python(key: str, code: str, folder: Path, *arguments: str, **options: Any) -> Job:
    """Return a job that runs a few lines of Python."""
    return Job(key, (sys.executable, "-S", "-c", code, *arguments), folder / f"{key}.log", **options)


def finished(pool: LocalPool, seconds: float = 20.0) -> dict[str, Outcome]:
    """Return the outcomes of all jobs that run."""
    outcomes: dict[str, Outcome] = {}
    end = time.monotonic() + seconds
    while pool.running():
        assert time.monotonic() < end, f"still running: {pool.running()}"
        outcomes |= {outcome.key: outcome for outcome in pool.poll(1.0)}
    return outcomes


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until a function returns something true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def says(folder: Path, key: str, text: str) -> Callable[[], bool]:
    """Return whether a job's log holds a text."""
    return lambda: (folder / f"{key}.log").exists() and text in (folder / f"{key}.log").read_text()


def is_alive(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def family(file: Path) -> list[int]:
    """Return the processes of a job that has said who they are."""
    wait_for(file.exists)
    pids = [int(pid) for pid in file.read_text().split()]
    assert len(pids) == 4
    assert all(map(is_alive, pids))
    return pids


def test_a_slot_is_refilled_while_the_longest_job_of_all_still_runs(pool: LocalPool, tmp_path: Path) -> None:
    long = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)"
    last = "import sys; open(sys.argv[1], 'w')"
    waiting = [python("long", long, tmp_path, str(tmp_path / "seen"))]
    waiting += [python(key, "pass", tmp_path) for key in "abc"]
    waiting += [python("last", last, tmp_path, str(tmp_path / "seen"))]
    outcomes: list[Outcome] = []
    while waiting or pool.running():
        while waiting and pool.free():
            pool.submit(waiting.pop(0))
        found = pool.poll(20.0)
        assert found, "every job waits for the longest"
        outcomes += found
    assert [outcome.key for outcome in outcomes][:3] == ["a", "b", "c"]
    assert {outcome.key: outcome.slot for outcome in outcomes} == {
        "long": "cpu:0",
        **dict.fromkeys("abc", "cpu:1"),
        "last": "cpu:1",
    }


@pytest.mark.parametrize(
    ("code", "options", "expected"),
    [
        ("pass", {}, (0, "done")),
        ("raise SystemExit(3)", {}, (3, "failed")),
        ("import os; os.kill(os.getpid(), 9)", {}, (-9, "killed by signal SIGKILL")),
        ("import os; os.abort()", {}, (-6, "killed by signal SIGABRT")),
        ("import time; time.sleep(60)", {"time_limit": 0.2}, (-2, "exceeded its time limit of 0.2 s")),
        (STUBBORN, {"time_limit": 0.3}, (-9, "exceeded its time limit of 0.3 s")),
    ],
)
def test_every_end_of_a_job_is_told(
    pool: LocalPool, tmp_path: Path, code: str, options: dict[str, float], expected: tuple[int, str]
) -> None:
    pool.submit(python("job", code, tmp_path, **options))
    outcome = finished(pool)["job"]
    assert (outcome.code, outcome.reason) == expected
    assert outcome.slot == "cpu:0"
    assert pool.free() == 2


def test_a_job_that_cannot_start_is_told_and_frees_its_slot(pool: LocalPool, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pool.submit(Job("absent", ("/no/such/program",), tmp_path / "absent.log"))
    pool.submit(Job("logless", ("true",), tmp_path / "file" / "log"))
    outcomes = finished(pool)
    assert outcomes["absent"].reason == "never started: No such file or directory: /no/such/program"
    assert outcomes["logless"].reason.startswith("never started: ")
    assert {outcome.code for outcome in outcomes.values()} == {None}
    assert pool.free() == 2


def test_more_jobs_than_slots_and_a_key_twice_are_refused(pool: LocalPool, tmp_path: Path) -> None:
    pool.submit(python("one", "import time; time.sleep(60)", tmp_path))
    with pytest.raises(RuntimeError, match="is running"):
        pool.submit(python("one", "", tmp_path))
    pool.submit(python("two", "import time; time.sleep(60)", tmp_path))
    with pytest.raises(RuntimeError, match="taken"):
        pool.submit(python("three", "", tmp_path))
    assert pool.running() == {"one": "cpu:0", "two": "cpu:1"}


def test_poll_waits_no_longer_than_asked(pool: LocalPool, tmp_path: Path) -> None:
    assert pool.poll(5.0) == []
    pool.submit(python("long", "import time; time.sleep(60)", tmp_path))
    started = time.monotonic()
    assert pool.poll(0.1) == []
    assert 0.1 <= time.monotonic() - started < 3


def test_a_cancelled_job_ends_as_after_ctrl_c(pool: LocalPool, tmp_path: Path) -> None:
    code = """
import time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("cleaned up", flush=True)
    raise SystemExit(130)
"""
    pool.submit(python("job", code, tmp_path))
    wait_for(says(tmp_path, "job", "ready"))
    pool.cancel("job")
    pool.cancel("job")
    outcome = finished(pool)["job"]
    assert (outcome.code, outcome.reason) == (130, "cancelled")
    assert says(tmp_path, "job", "cleaned up")()
    pool.cancel("job")


def test_a_job_can_be_asked_to_end_although_the_pool_blocks_and_ignores_the_signal(
    pool: LocalPool, tmp_path: Path
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        pool.submit(python("job", "import time; print('ready', flush=True); time.sleep(60)", tmp_path))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    wait_for(says(tmp_path, "job", "ready"))
    pool.cancel("job")
    assert finished(pool)["job"].code == -signal.SIGINT


def test_a_job_that_does_not_want_to_end_is_killed_after_the_grace(pool: LocalPool, tmp_path: Path) -> None:
    pool.submit(python("job", STUBBORN, tmp_path))
    wait_for(says(tmp_path, "job", "ready"))
    started = time.monotonic()
    pool.cancel("job")
    assert finished(pool)["job"].code == -signal.SIGKILL
    assert 0.5 <= time.monotonic() - started < 5


def test_a_hard_cancel_kills_all_that_a_job_has_started(pool: LocalPool, tmp_path: Path) -> None:
    pool.submit(python("job", FAMILY, tmp_path, str(tmp_path / "pids")))
    pids = family(tmp_path / "pids")
    pool.cancel("job", hard=True)
    assert finished(pool)["job"].reason == "cancelled"
    assert not any(map(is_alive, pids))


def test_closing_the_pool_ends_all_jobs(tmp_path: Path) -> None:
    pool = LocalPool(build_slots("cpu", jobs_per_device=2), grace=0.3)
    pool.submit(python("family", FAMILY, tmp_path, str(tmp_path / "pids")))
    pool.submit(python("stubborn", STUBBORN, tmp_path))
    pids = family(tmp_path / "pids")
    wait_for(says(tmp_path, "stubborn", "ready"))
    pool.close()
    assert not any(map(is_alive, pids))
    assert pool.running() == {}


def test_a_job_sees_the_slot_and_its_own_variables_but_no_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("KEPT", "inherited")
    pool = LocalPool(build_slots([1], environment={"CUDA_VISIBLE_DEVICES": "6,7"}), grace=1)
    environment = {"MINE": "added", "CUDA_VISIBLE_DEVICES": "6,7"}
    code = "import os, sys; print(sorted(os.environ.items())); print('error', file=sys.stderr); print(sys.stdin.read())"
    pool.submit(python("job", code, tmp_path, environment=environment))
    assert finished(pool)["job"].code == 0
    pool.close()
    said = (tmp_path / "job.log").read_text()
    for expected in ("('KEPT', 'inherited')", "('MINE', 'added')", "('CUDA_VISIBLE_DEVICES', '7')", "error"):
        assert expected in said
    for name in ("MASTER_PORT", "'RANK'", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC", "SLURM_NTASKS"):
        assert name not in said


PARENT = f"""
import sys
from pathlib import Path
from finetune.search.pools.jobs import Job
from finetune.search.pools.local_pool import LocalPool
from finetune.search.pools.slots import build_slots
pool = LocalPool(build_slots("cpu"), grace=30)
command = (sys.executable, "-S", "-c", {FAMILY!r}, sys.argv[1] + "/pids")
pool.submit(Job("job", command, Path(sys.argv[1], "job.log")))
pool.poll(60)
"""


def test_nothing_is_left_behind_when_the_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    pids = family(tmp_path / "pids")
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(map(is_alive, pids)), seconds=5)


def test_nothing_is_left_behind_when_the_parent_is_killed_at_any_moment(tmp_path: Path) -> None:
    for delay in (0.0, 0.01, 0.02, 0.04, 0.08):
        folder = tmp_path / str(delay)
        folder.mkdir()
        parent = subprocess.Popen([sys.executable, "-c", PARENT, str(folder)])
        wait_for((folder / "job.log").exists)  # the job is about to start
        time.sleep(delay)
        parent.kill()
        parent.wait()
    mark = str(tmp_path).encode()
    wait_for(lambda: not any(mark in command for command in commands()), seconds=5)


def commands() -> list[bytes]:
    """Return the command lines of all processes."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes())
        except OSError:
            continue
    return found


def test_a_job_whose_supervisor_is_killed_dies_too(pool: LocalPool, tmp_path: Path) -> None:
    pool.submit(python("job", FAMILY, tmp_path, str(tmp_path / "pids")))
    job, child, *_ = family(tmp_path / "pids")
    supervisor = int(Path(f"/proc/{job}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    outcome = finished(pool)["job"]
    assert (outcome.code, outcome.reason) == (-9, "killed by signal SIGKILL")
    wait_for(lambda: not is_alive(job) and not is_alive(child), seconds=5)
    for pid in (int(pid) for pid in (tmp_path / "pids").read_text().split()):
        if is_alive(pid):  # of another group: nobody knows it now but this test
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_what_a_finished_job_leaves_behind_is_swept_up(pool: LocalPool, tmp_path: Path) -> None:
    code = FAMILY.rsplit("time.sleep(60)", 1)[0]
    pool.submit(python("job", code, tmp_path, str(tmp_path / "pids")))
    outcome = finished(pool)["job"]
    assert (outcome.code, outcome.reason) == (0, "done")
    assert not any(is_alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())
