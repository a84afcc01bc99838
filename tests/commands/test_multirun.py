"""A multirun: jobs in parallel, each with its output, and an end that says what is to be done."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.report.console.multirun_console import tell_end
from finetune.runs.run import Run
from finetune.search.multirun.grid import JobPlan
from finetune.search.multirun.grid_run import Multirun, new_multirun_folder, run_grid_jobs
from finetune.search.multirun.live_table import LiveTable
from finetune.search.multirun.scheduler import Stop
from finetune.search.pools.local_pool import LocalPool
from finetune.search.pools.slots import build_slots

SUPPORT = Path(__file__).parents[1] / "support"
TINY = [
    "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "trainer=cpu", "trainer.threads=1",
    "bootstrap=20",
    "report=false", "explain.images=0",
]  # fmt: skip


def light(folder: Path, *code: str, time_limit: float | None = None) -> tuple[Multirun, LiveTable]:
    """Run lines of Python as the jobs of a multirun on two slots, and return it with its board."""
    plans = [
        JobPlan(f"job={number}", (line,), None, None, "val/accuracy", "max", folder) for number, line in enumerate(code)
    ]
    multirun = Multirun(new_multirun_folder(folder / "many"), plans, [sys.executable, "-S", "-c"], time_limit)
    pool = LocalPool(build_slots("cpu", jobs_per_device=2), grace=1)
    with LiveTable("job", "val/accuracy", "max", total=len(plans), slots=2) as board:
        run_grid_jobs(multirun, pool, Stop(), board)
    pool.close()
    return multirun, board


def test_a_failed_job_stops_no_other_and_is_told_with_its_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "import sys; print('before'); print('finetune: No such data. Type data=x.'); sys.exit('later')"
    killed = "import os; print('working', flush=True); os.kill(os.getpid(), 9)"
    multirun, board = light(tmp_path, "print('fine')", wrong, killed, "import time; time.sleep(60)", time_limit=5)
    assert tell_end(multirun, Stop(), board) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "finetune: 3 of 4 jobs failed:"
    log = tmp_path / "many"
    assert sorted(told[1:]) == [
        f"  job 1 (job=1) failed with exit code 1: No such data. Type data=x. Its output is in {log}/1.log.",
        f"  job 2 (job=2) killed by signal SIGKILL: working Its output is in {log}/2.log.",
        f"  job 3 (job=3) exceeded its time limit of 5 s: KeyboardInterrupt Its output is in {log}/3.log.",
    ]
    assert (tmp_path / "many" / "0.log").read_text() == "fine\n"


def test_the_record_says_how_each_job_stands(tmp_path: Path) -> None:
    multirun, board = light(tmp_path, "pass", "raise SystemExit(3)")
    jobs = json.loads((tmp_path / "many" / "multirun.json").read_text())["jobs"]
    assert [(job["job"], job["state"], job["exit_code"]) for job in jobs] == [("0", "done", 0), ("1", "failed", 3)]
    assert {job["device"] for job in jobs} == {"cpu:0", "cpu:1"}


def test_all_jobs_done_is_exit_code_0(tmp_path: Path) -> None:
    multirun, board = light(tmp_path, "pass", "pass")
    assert tell_end(multirun, Stop(), board) == 0


def test_two_multiruns_of_one_second_have_two_folders(tmp_path: Path) -> None:
    assert [new_multirun_folder(tmp_path / "now").name for _ in range(3)] == ["now", "now_2", "now_3"]


def test_a_pool_that_cannot_be_leaves_no_folder_behind(tmp_path: Path) -> None:
    process = run(tmp_path, "seed=0,1", "pool.devices=[7]")
    assert process.communicate(timeout=60)[0].startswith("finetune: pool.devices=[7]")
    assert process.returncode == 2
    assert list(tmp_path.iterdir()) == []


def run(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start the command in a folder, in fresh processes, as the jobs of a multirun are."""
    return subprocess.Popen(
        [sys.executable, "-m", "finetune", "-m", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_each_job_of_a_distributed_multirun_is_one_run_with_its_own_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{SUPPORT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    ranks = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    process = run(
        tmp_path, *TINY, *ranks, "optimizer.lr=1e-3,1e-4", "+callbacks.rates._target_=rates.RatesOfRanks",
        "debug=quick", "strategy=full", "name=same", "pool.devices=2", "logger=wandb",
    )  # fmt: skip
    output = process.communicate(timeout=400)[0]
    assert process.returncode == 0, output
    runs = Run.all(tmp_path / "runs")
    assert sorted(run.config["optimizer"]["lr"] for run in runs) == [1e-4, 1e-3]
    for each in runs:
        rates = [float((each.path / f"rate_of_rank_{rank}").read_text()) for rank in range(2)]
        assert rates == [each.config["optimizer"]["lr"]] * 2
    assert all(run.status == "finished" and run.metrics_file.exists() for run in runs)
    assert len(list(tmp_path.glob("runs/*/*"))) == 2, "no rank makes a folder of its own"
    assert len(list(tmp_path.glob("runs/*/*/wandb/offline-run-*"))) == 2
    assert len({run.record["wandb"]["id"] for run in runs}) == 2


@pytest.mark.slow
def test_ctrl_c_leaves_runs_that_can_be_continued(tmp_path: Path) -> None:
    process = run(
        tmp_path, *TINY, "strategy=full", "strategy.epochs=200", "seed=0,1,2", "pool.devices=2", "logger=none"
    )
    end = time.monotonic() + 200
    while len(list(tmp_path.glob("runs/*/*/checkpoints/last.ckpt"))) < 2:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 130, output
    runs = Run.all(tmp_path / "runs")
    assert [run.record["status"] for run in runs] == ["interrupted", "interrupted"]
    assert "Interrupted when 0 of 3 jobs were done" in output
    for each in runs:
        assert f"finetune resume={each.path.relative_to(tmp_path)}" in output
