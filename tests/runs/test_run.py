"""A run's folder: made once, found again by any of its names, honest about a dead process, written atomically."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.errors import ConfigError, RunError
from finetune.runs.run import Run, replacing, write_atomic, write_json
from finetune.runtime.provenance import git_state

CONFIG: dict[str, Any] = {"seed": 3, "data": {"root": "Bilder/Käfer", "splits": {"val": 0.15}}, "tags": []}


def create(path: Path, **fields: Any) -> Run:
    run = Run.create(path, config=CONFIG, command=["finetune", "seed=3"], seed=3)
    run.update(**fields)
    return run


def dead_process() -> int:
    """Return the number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# the folder


def test_a_new_run_says_what_it_is(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    record = Run.open(tmp_path / "run").record
    assert record["status"] == run.status == "running"
    assert (record["seed"], record["command"]) == (3, ["finetune", "seed=3"])
    assert record["id"] and record["created"]
    assert {"python", "torch", "timm", "wandb"} <= set(record["versions"])
    assert run.config == CONFIG


def test_the_folder_is_laid_out_as_promised(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    paths = [
        run.config_file, run.record_file, run.history_file, run.metrics_file, run.predictions_file("val"),
        run.best_checkpoint, run.last_checkpoint, run.model_dir, run.report_file, run.log_file,
    ]  # fmt: skip
    assert [path.relative_to(run.path).as_posix() for path in paths] == [
        "config.yaml", "run.json", "metrics.csv", "metrics.json", "predictions/val.parquet",
        "checkpoints/best.ckpt", "checkpoints/last.ckpt", "model", "report.html", "train.log",
    ]  # fmt: skip


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    with pytest.raises(RunError, match="already holds a run.*resume="):
        create(run.path)
    assert run.config == CONFIG


def test_of_two_runs_in_the_same_second_one_is_refused(tmp_path: Path) -> None:
    def attempt(number: int) -> str:
        try:
            return str(create(tmp_path / "2026-01-01_00-00-00").record["id"])
        except RunError:
            return "refused"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(8)))
    assert outcomes.count("refused") == 7
    assert Run.open(tmp_path / "2026-01-01_00-00-00").record["id"] in outcomes


def test_a_checkout_is_recorded_with_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert git_state() is None
    author = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for command in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *command], check=True)
    state = git_state()
    assert state is not None and len(state["commit"]) == 40 and state["dirty"] is False
    (tmp_path / "new").touch()
    assert git_state() == {**state, "dirty": True}


# status


def test_a_running_run_whose_process_is_gone_is_interrupted(tmp_path: Path) -> None:
    run = create(tmp_path / "run", pid=dead_process(), process_started="1")
    assert run.status == "interrupted"


def test_a_later_process_of_the_same_number_is_not_the_run(tmp_path: Path) -> None:
    run = create(tmp_path / "run", pid=os.getpid(), process_started="1")
    assert run.status == "interrupted"


@pytest.mark.parametrize("status", ["finished", "failed", "interrupted", "pruned"])
def test_an_ended_run_keeps_its_status(tmp_path: Path, status: str) -> None:
    assert create(tmp_path / "run", status=status, pid=dead_process()).status == status


def test_a_run_killed_as_it_began_is_failed_and_its_config_is_an_error_in_one_line(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    run.record_file.write_text("")
    run.config_file.write_text("")
    assert run.status == "failed"
    with pytest.raises(RunError, match="config.yaml cannot be read"):
        _ = run.config


def test_a_finished_run_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="finished, there is nothing to resume.*finetune evaluate run="):
        create(tmp_path / "run", status="finished").continue_with(["finetune"])


def test_what_was_being_written_is_removed_when_a_run_goes_on(tmp_path: Path) -> None:
    run = create(tmp_path / "run", status="interrupted")
    left = [run.model_dir / ".tmpA1b2C3", run.checkpoints / ".partial-00000000-last.ckpt", run.path / ".tmpX"]
    kept = [run.model_dir / "weights.safetensors", run.path / "wandb" / "run-1" / ".tmp7"]
    for path in (*left, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    run.continue_with(["finetune"])
    assert [path.exists() for path in (*left, *kept)] == [False] * 3 + [True] * 2


def test_a_live_run_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"still running .process {os.getpid()}"):
        create(tmp_path / "run").continue_with(["finetune"])


def test_a_run_of_another_machine_says_how_to_resume_it(tmp_path: Path) -> None:
    run = create(tmp_path / "run", host="elsewhere", pid=1)
    with pytest.raises(ConfigError, match='on elsewhere.*set "status": "interrupted" in .*run.json'):
        run.continue_with(["finetune"])
    run.record_file.write_text(run.record_file.read_text().replace('"running"', '"interrupted"'))
    run.continue_with(["finetune"])
    assert run.status == "running"


def test_an_interrupted_run_goes_on_under_this_process(tmp_path: Path) -> None:
    run = create(tmp_path / "run", pid=dead_process(), process_started="1")
    leftover = run.checkpoints / ".partial-0-best.ckpt"
    leftover.write_bytes(b"half")
    run.continue_with(["finetune", "resume=last"])
    assert run.status == "running"
    assert [entry["command"] for entry in run.record["resumed"]] == [["finetune", "resume=last"]]
    assert not leftover.exists()


# finding


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Run]:
    """Runs as two sweeps would leave them: the same second, names that begin alike."""
    names = [
        "mobile-full/2026-01-01_00-00-00",
        "mobile-full-lr_1/2026-01-01_00-00-00",
        "mobile-full/2026-01-02_00-00-00",
    ]
    return {
        name: create(tmp_path / "runs" / name, id=f"id{number}", created=f"2026-01-0{number + 1}")
        for number, name in enumerate(names)
    }


def test_last_is_the_newest_whatever_its_status(tmp_path: Path, runs: dict[str, Run]) -> None:
    newest = runs["mobile-full/2026-01-02_00-00-00"]
    for status in ("running", "failed", "finished"):
        newest.update(status=status)
        assert Run.find("last", tmp_path / "runs").path == newest.path


def test_all_runs_are_listed_oldest_first(tmp_path: Path, runs: dict[str, Run]) -> None:
    assert [run.record["id"] for run in Run.all(tmp_path / "runs")] == ["id0", "id1", "id2"]


def test_a_run_is_found_by_path_id_name_or_the_beginning_of_one(
    tmp_path: Path, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = list(runs.values())[:2]
    references = [str(first.path), "runs/mobile-full/2026-01-01_00-00-00", "id0", "mobile-full/2026-01-01_00-00-00"]
    for reference in [*references, "mobile-full/2026-01-01"]:
        assert Run.find(reference, Path("runs")).path == first.path, reference
    for reference in ("id1", "mobile-full-lr_1", "mobile-full-lr_1/2026"):
        assert Run.find(reference, Path("runs")).path == second.path, reference


def test_a_whole_name_wins_over_a_longer_one(tmp_path: Path) -> None:
    short = create(tmp_path / "bees")
    create(tmp_path / "bees-2")
    assert Run.find("bees", tmp_path).path == short.path


@pytest.mark.parametrize("reference", ["2026-01-01_00-00-00", "mobile", "id"])
def test_a_word_for_several_runs_names_them(tmp_path: Path, runs: dict[str, Run], reference: str) -> None:
    with pytest.raises(ConfigError, match=f"'{reference}' means [23] runs .*mobile-full"):
        Run.find(reference, tmp_path / "runs")


@pytest.mark.parametrize(
    ("reference", "meant"),
    [("lsat", "last"), ("mobil-full-lr_1/2026-01-01_00-00-00", "mobile-full-lr_1/2026-01-01_00-00-00")],
)
def test_a_misspelt_run_names_the_nearest(tmp_path: Path, runs: dict[str, Run], reference: str, meant: str) -> None:
    root = tmp_path / "runs"
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'"):
        Run.find(reference, root)


def test_a_misspelt_path_names_the_nearest_beside_it(tmp_path: Path, runs: dict[str, Run]) -> None:
    with pytest.raises(ConfigError, match="is not a run folder.*Did you mean '2026-01-02_00-00-00'"):
        Run.open(tmp_path / "runs/mobile-full/2026-01-02_00-00-0")


@pytest.mark.parametrize("reference", ["last", "x", ""])
def test_no_run_at_all_is_one_clear_line(tmp_path: Path, reference: str) -> None:
    with pytest.raises(ConfigError, match="There is no run") as caught:
        Run.find(reference, tmp_path / "none")
    assert "\n" not in str(caught.value)


# writing


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_atomic(path, "old")
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom finetune.runs.run import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n    print('now', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert path.read_text() == "old"


def test_an_error_in_the_middle_of_a_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    write_atomic(path, b"old")
    with pytest.raises(ValueError), replacing(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".parquet"
        temporary.write_bytes(b"half")
        raise ValueError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_as_readable_as_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_reader_never_sees_half_a_record(tmp_path: Path) -> None:
    run = create(tmp_path / "run")
    script = "import sys\nfrom finetune.runs.run import Run\n"
    script += "for n in range(200): Run(sys.argv[1]).update(n=n, fill='x' * 5000)"
    process = subprocess.Popen([sys.executable, "-c", script, str(run.path)])
    while process.poll() is None:
        assert json.loads(run.record_file.read_text())["seed"] == 3
        time.sleep(0.001)
    assert process.returncode == 0 and run.record["n"] == 199


def test_json_has_null_where_a_number_is_not_finite(tmp_path: Path) -> None:
    values = [float("nan"), float("inf"), np.float32("nan"), np.float64("-inf")]
    write_json(
        tmp_path / "x.json", {"bad": values, "good": {1: (np.float32(0.5), np.int64(2), True, 0.1, "nan", None)}}
    )

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert found == {"bad": [None] * 4, "good": {"1": [0.5, 2, True, 0.1, "nan", None]}}
