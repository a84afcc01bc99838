"""What the real W&B client records of a run: read back from its offline log, or from a server on the loopback."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
from PIL import Image
from wandb_backend import ENTITY, Backend
from wandb_log import read_logs
from wandb_parts import ACCURACIES, CONFIG, create, log_epochs, resume, save_checkpoints, tracked

from finetune.report.wandb_plots import gallery
from finetune.runs.run import Run

pytestmark = pytest.mark.usefixtures("logged_out")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create(tmp_path / "runs" / "one")


# what is recorded


def test_the_run_is_described_whole(run: Run) -> None:
    tracked(run).finish(0)
    (log,) = read_logs(run.path)
    assert log.config == {**CONFIG, "run_folder": str(run.path), "versions": run.record["versions"]}
    assert (log.name, log.project, log.group, log.job_type) == ("mobile-full/today", "bees", "sweep 1", "train")
    assert sorted(log.tags) == ["a", "b"]
    assert log.exit_code == 0


def test_folder_and_wandb_run_name_each_other(run: Run) -> None:
    tracked(run).finish(0)
    (log,) = read_logs(run.path)
    link = run.record["wandb"]
    assert (link["id"], link["url"], link["mode"]) == (log.id, None, "offline")
    assert run.path / link["folder"] == log.folder
    assert log.config["run_folder"] == str(run.path)


@pytest.mark.parametrize(
    ("monitor", "mode", "best"),
    [
        ("val/accuracy", "max", {"val/accuracy": {"max": 0.9}, "val/loss": {"min": pytest.approx(0.1)}}),
        ("val/loss", "min", {"val/accuracy": {"max": 0.9}, "val/loss": {"min": pytest.approx(0.1)}}),
        ("val/accuracy", "min", {"val/accuracy": {"min": 0.5}}),
        ("val/own_metric", "min", {"val/accuracy": {"max": 0.9}}),
    ],
)
def test_summary_holds_best_value(run: Run, monitor: str, mode: str, best: dict[str, Any]) -> None:
    tracker = tracked(run, monitor=monitor, mode_of_monitor=mode)
    log_epochs(tracker)
    tracker.finish(0)
    (log,) = read_logs(run.path)
    assert {name: log.summary[name] for name in best} == best
    assert log.summary["train/loss"] == 2.0


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_summary_of_a_resumed_run_holds_best_value_of_both_parts(run: Run, wandb_server: Backend, mode: str) -> None:
    log_epochs(first := tracked(run, mode=mode))
    first.finish(1)
    log_epochs(second := tracked(resume(run), mode=mode), accuracies=(0.6, 0.8), first=3)
    second.finish(0)
    summary = wandb_server.runs[second.id].summary if mode == "online" else read_logs(run.path)[-1].summary
    assert summary["val/accuracy"] == {"max": 0.9}
    assert summary["val/loss"] == {"min": pytest.approx(0.1)}


def test_final_scores_are_in_the_summary(run: Run) -> None:
    tracker = tracked(run)
    log_epochs(tracker)
    tracker.log_summary({"test/accuracy": 0.8, "test/accuracy_low": 0.7})
    tracker.finish(0)
    (log,) = read_logs(run.path)
    assert (log.summary["test/accuracy"], log.summary["test/accuracy_low"]) == (0.8, 0.7)
    assert log.column("val/accuracy") == list(ACCURACIES)
    assert log.column("trainer/global_step") == [0, 10, 20]


def test_next_job_gets_its_own_run(tmp_path: Path) -> None:
    first, second = (tracked(create(tmp_path / name)) for name in ("one", "two"))  # the first is still open
    log_epochs(second, accuracies=(0.1,))
    log_epochs(first, accuracies=(0.2, 0.3))
    second.finish(0)
    first.finish(1)
    logs = [read_logs(tmp_path / name) for name in ("one", "two")]
    assert [len(found) for found in logs] == [1, 1]
    assert [found[0].column("val/accuracy") for found in logs] == [[0.2, 0.3], [0.1]]
    assert [found[0].exit_code for found in logs] == [1, 0]
    assert first.id != second.id


def test_images_are_in_the_log_only_on_request(run: Run) -> None:
    tracker = tracked(run)
    log_epochs(tracker)
    assert not list(run.path.rglob("*.png"))
    tracker.log_charts({"test/worst_errors": gallery([(Image.new("RGB", (4, 4)), "cat, predicted dog")])})
    tracker.finish(0)
    assert len(list(run.path.rglob("*.png"))) == 1
    (log,) = read_logs(run.path)
    assert log.summary["test/worst_errors.captions"] == ["cat, predicted dog"]


# where it is kept


def test_nothing_is_written_outside_the_run_folder(tmp_path: Path, run: Run, wandb_server: Backend) -> None:
    for mode in ("offline", "online"):
        save_checkpoints(run, "best")
        tracker = tracked(run, mode=mode, checkpoints="best")
        log_epochs(tracker)
        tracker.finish(1)
        resume(run)
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(run.path)]
    assert outside == []


def test_the_environment_is_left_as_it_was(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", "/the/users/own")
    before = dict(os.environ)
    tracker = tracked(run, checkpoints="best")
    assert dict(os.environ) == before
    save_checkpoints(run, "best")
    tracker.finish(0)
    assert dict(os.environ) == before


def test_the_next_run_of_a_process_keeps_its_files_to_itself(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run = create(tmp_path / name)
        save_checkpoints(run, "best")
        tracked(run, checkpoints="best").finish(0)
    for name in ("one", "two"):
        (artifact,) = read_logs(tmp_path / name)[0].artifacts
        assert artifact.files["best.ckpt"].is_relative_to(tmp_path / name)


@pytest.mark.parametrize(("choice", "aliases"), [("none", []), ("best", ["best"]), ("best_and_last", ["best", "last"])])
@pytest.mark.parametrize("exit_code", [0, 1])
def test_checkpoints_are_uploaded_after_a_crash(run: Run, choice: str, aliases: list[str], exit_code: int) -> None:
    save_checkpoints(run, "best", "last")
    tracked(run, checkpoints=choice).finish(exit_code)
    (log,) = read_logs(run.path)
    assert log.exit_code == exit_code
    assert [{*artifact.aliases} for artifact in log.artifacts] == [{alias, "latest"} for alias in aliases]
    assert all(artifact.type == "model" and artifact.name == f"model-{log.id}" for artifact in log.artifacts)
    waiting = [path for artifact in log.artifacts for path in artifact.files.values()]
    contents = [(run.checkpoints / f"{alias}.ckpt").read_bytes() for alias in aliases]
    moved = run.path.rename(run.path.with_name("moved"))
    assert [(moved / path.relative_to(run.path)).read_bytes() for path in waiting] == contents


def test_a_crash_before_the_first_checkpoint_uploads_none(run: Run) -> None:
    tracked(run, checkpoints="best_and_last").finish(1)
    assert [(log.artifacts, log.exit_code) for log in read_logs(run.path)] == [([], 1)]


def test_finish_counts_once(run: Run) -> None:
    tracker = tracked(run)
    tracker.finish(1)
    tracker.finish(0)
    assert read_logs(run.path)[0].exit_code == 1


# continued runs


def test_an_offline_run_goes_on_under_its_id_without_a_gap(run: Run) -> None:
    for part in range(3):
        tracker = tracked(run)
        log_epochs(tracker, first=3 * part)
        tracker.finish(1)
        resume(run)
    logs = read_logs(run.path)
    assert len({log.id for log in logs}) == 1
    assert [log.column("_step") for log in logs] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert len({log.folder for log in logs}) == 3


def test_a_killed_offline_run_goes_on_after_its_last_row(run: Run) -> None:
    tracker = tracked(run)
    log_epochs(tracker)
    link = run.record["wandb"]
    tracker.finish(1)
    run.update(wandb=link)  # as a kill -9 would have left it
    second = tracked(resume(run))
    log_epochs(second, first=3)
    second.finish(0)
    assert read_logs(run.path)[-1].column("_step") == [3, 4, 5]


def test_the_printed_command_uploads_all_parts_of_an_offline_run(run: Run, wandb_server: Backend) -> None:
    save_checkpoints(run, "best")
    for part in range(2):
        tracker = tracked(run, checkpoints="best")
        log_epochs(tracker, first=3 * part)
        tracker.finish(1 - part)
        if part == 0:
            resume(run)
    assert not wandb_server.runs
    command = tracker.how_to_view.split("`")[3]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "WANDB_ERROR_REPORTING": "false"}
    subprocess.run(command, shell=True, check=True, env=environment, capture_output=True)
    stored = wandb_server.runs[tracker.id]
    assert [row["_step"] for row in stored.rows] == [0, 1, 2, 3, 4, 5]
    assert (stored.state, stored.summary["val/accuracy"]) == ("finished", {"max": 0.9})
    assert [artifact.state for artifact in wandb_server.artifacts.values()] == ["COMMITTED"]


def test_a_run_crashes_resumes_and_gives_its_checkpoint_back(tmp_path: Path, run: Run, wandb_server: Backend) -> None:
    log_epochs(first := tracked(run, mode="auto", checkpoints="best_and_last"))
    save_checkpoints(run, "best", "last")
    first.finish(1)
    stored = wandb_server.runs[first.id]
    assert (stored.state, stored.exit_code) == ("failed", 1)
    assert stored.settings() == {**CONFIG, "run_folder": str(run.path), "versions": run.record["versions"]}
    assert run.record["wandb"]["url"] == first.url == f"{wandb_server.url}/{ENTITY}/bees/runs/{first.id}"

    log_epochs(second := tracked(resume(run), mode="auto", checkpoints="best_and_last"), first=3)
    save_checkpoints(run, "best", "last")
    second.finish(0)
    assert second.id == first.id
    assert list(wandb_server.runs) == [first.id]
    assert [row["_step"] for row in stored.rows] == [0, 1, 2, 3, 4, 5]
    assert [row["trainer/global_step"] for row in stored.rows] == [0, 10, 20, 30, 40, 50]
    assert (stored.state, stored.exit_code, stored.group, stored.job_type) == ("finished", 0, "sweep 1", "train")

    for alias in ("best", "last"):
        artifact = wandb.Api().artifact(f"{ENTITY}/bees/model-{first.id}:{alias}")
        folder = artifact.download(root=str(tmp_path / alias), skip_cache=True)
        assert Path(folder, f"{alias}.ckpt").read_bytes() == (run.checkpoints / f"{alias}.ckpt").read_bytes()
