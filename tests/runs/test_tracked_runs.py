"""How a run ends is told alike by its exit code, its folder and W&B, whatever ends it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from wandb_backend import Backend
from wandb_log import read_logs

from finetune.config.compose import conf_dir, register
from finetune.config.resolve import resolve
from finetune.config.settings.roots import TrainSettings
from finetune.errors import ConfigError, RunError
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.runs.wandb import Tracker
from finetune.runtime.signals import ENDING
from finetune.training.run_lifecycle import record_outcome

TINY = [
    "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "strategy=full", "trainer=cpu",
    "trainer.threads=1", "trainer.log_every=1", "trainer.limit_batches=4", "data.batch_size=8", "bootstrap=20",
    "report=false", "explain.images=0",
]  # fmt: skip


pytestmark = pytest.mark.usefixtures("logged_out")


def configured(path: Path, *overrides: str) -> tuple[Run, TrainSettings]:
    """Return the address of a new run and its settings, as the command train makes them."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return Run(path), resolve(compose("train", [*TINY, *overrides]), TrainSettings)


def finetune(*arguments: str) -> "subprocess.Popen[str]":
    """Start the command line as a terminal does, in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "finetune", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def wait_for_rows(process: "subprocess.Popen[str]", run: Run, number: int) -> None:
    """Wait until a run has logged some rows."""
    while process.poll() is None and len(RunHistory(run.history_file).rows) < number:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()


def without_empty(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without its empty dictionaries."""
    return {
        key: without_empty(value) if isinstance(value, dict) else value for key, value in config.items() if value != {}
    }


# in this process


def test_config_in_tracker_is_resolved(tmp_path: Path) -> None:
    run, settings = configured(tmp_path / "run", "data.horizontal_flip=0.25", "tags=[a,b]", "group=g")
    with record_outcome(run, settings, resume=False):
        pass
    (log,) = read_logs(run.path)
    assert log.config == json.loads(
        json.dumps({**settings.document, "run_folder": str(run.path), "versions": run.record["versions"]})
    )
    assert log.config["augment"]["horizontal_flip"] == 0.25  # ${data.horizontal_flip} in the files
    assert "${" not in json.dumps(log.config)
    assert (sorted(log.tags), log.group, log.job_type) == (["a", "b"], "g", "train")


def lightning_interrupt() -> None:
    """Raise what Lightning makes of Ctrl-C."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        (lambda: None, "finished", 0),
        (lambda: fail(RuntimeError("out of memory")), "failed", 1),
        (lambda: fail(ConfigError("no such column")), "failed", 1),
        (lambda: fail(KeyboardInterrupt()), "interrupted", 130),
        (lightning_interrupt, "interrupted", 130),
        *((lambda number=number: os.kill(os.getpid(), number), "interrupted", 143) for number in (SIGTERM, *ENDING)),
        (lambda: sys.exit("stopped"), "interrupted", 1),
    ],
)
def test_crashed_run_is_not_shown_as_finished(tmp_path: Path, end: Any, status: str, code: int) -> None:
    run, settings = configured(tmp_path / "run")
    try:
        with record_outcome(run, settings, resume=False) as tracker:
            assert tracker is not None
            tracker.logger.log_metrics({"val/accuracy": 0.5}, step=1)
            end()
    except (Exception, KeyboardInterrupt):
        pass
    except SystemExit as stop:
        assert stop.code == code
    (log,) = read_logs(run.path)
    assert (run.status, log.exit_code) == (status, code)
    assert log.column("val/accuracy") == [0.5]


def test_another_run_in_the_same_folder_is_refused_however_the_first_ended(tmp_path: Path) -> None:
    run, settings = configured(tmp_path / "run", "logger=none")
    with pytest.raises(RuntimeError), record_outcome(run, settings, resume=False):
        raise RuntimeError
    with (
        pytest.raises(RunError, match="already holds a run"),
        record_outcome(run, replace(settings, seed=1), resume=False),
    ):
        pytest.fail("the old run was overwritten")
    assert (run.status, run.config["seed"]) == ("failed", 0)
    with record_outcome(run, settings, resume=True):
        assert run.status == "running"
    assert run.status == "finished"


def test_run_is_finished_when_the_tracker_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, settings = configured(tmp_path / "run")
    close, seen = Tracker.finish, []

    def finish(tracker: Tracker, code: int) -> None:
        seen.append((code, run.record["status"]))
        close(tracker, code)

    monkeypatch.setattr(Tracker, "finish", finish)
    with record_outcome(run, settings, resume=False):
        run.previous_checkpoint.touch()
    assert seen == [(0, "running")]
    assert run.record["status"] == "finished" and not run.previous_checkpoint.exists()


def test_interruption_while_the_tracker_closes_leaves_the_run_to_be_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, settings = configured(tmp_path / "run")
    monkeypatch.setattr(Tracker, "finish", lambda tracker, code: os.kill(os.getpid(), SIGTERM))
    with pytest.raises(SystemExit) as stop, record_outcome(run, settings, resume=False):
        pass
    assert (stop.value.code, run.record["status"]) == (143, "interrupted")
    run.check_resumable()


def test_the_handler_of_sigterm_is_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run, settings = configured(tmp_path / "run")
    with record_outcome(run, settings, resume=False):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_failure_to_start_wandb_is_a_failed_run(tmp_path: Path) -> None:
    run, settings = configured(tmp_path / "run", "logger.wandb.mode=online")
    with pytest.raises(ConfigError, match="no key"), record_outcome(run, settings, resume=False):
        pytest.fail("the run went on without its tracker")
    assert run.status == "failed"


def test_without_wandb_there_is_no_tracker(tmp_path: Path) -> None:
    for number, override in enumerate(("logger=none", "logger.wandb.mode=disabled")):
        run, settings = configured(tmp_path / str(number), override)
        with record_outcome(run, settings, resume=False) as tracker:
            assert tracker is None
        assert run.status == "finished"


# whole runs


@pytest.mark.slow
def test_ctrl_c_saves_the_log_and_exits_130(tmp_path: Path) -> None:
    run = Run(tmp_path / "work" / "run")
    process = finetune(*TINY, "strategy.epochs=500", "logger.wandb.checkpoints=best", f"hydra.run.dir={run.path}")
    wait_for_rows(process, run, 12)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    (log,) = read_logs(run.path)
    assert (run.status, log.exit_code) == ("interrupted", 130)
    assert [row["val/loss"] for row in RunHistory(run.history_file).read() if "val/loss" in row] == log.column(
        "val/loss"
    )
    assert [sorted(artifact.aliases) for artifact in log.artifacts] == [["best", "latest"]]
    assert "Traceback" not in output + errors
    assert [path for path in (tmp_path / "home").rglob("*") if "wandb" in path.name] == []


@pytest.mark.slow
def test_sigterm_saves_the_log_exits_143_and_resume_goes_on_in_the_same_wandb_run(wandb_server: Backend) -> None:
    arguments = ["strategy.epochs=15", "logger.wandb.checkpoints=best_and_last", "logger.wandb.images=2", "tags=[x]"]
    folder = Path("runs", "wanted").absolute()
    process = finetune(*TINY, *arguments, f"hydra.run.dir={folder}")
    run = Run(folder)
    wait_for_rows(process, run, 25)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    (stored,) = wandb_server.runs.values()
    history = RunHistory(run.history_file).read()
    assert (run.status, stored.state, stored.exit_code) == ("interrupted", "failed", 143)
    assert [row["trainer/global_step"] for row in stored.rows] == [row["step"] for row in history]
    assert len(wandb_server.artifacts) == 2

    process = finetune("resume=last")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert list(wandb_server.runs) == [run.record["wandb"]["id"]]
    assert (run.status, stored.state, stored.exit_code) == ("finished", "finished", 0)
    assert [row["_step"] for row in stored.rows] == list(range(len(stored.rows)))
    history = RunHistory(run.history_file).read()
    assert {row["step"] for row in history} <= {row.get("trainer/global_step") for row in stored.rows}
    best = max(row["val/accuracy"] for row in history if "val/accuracy" in row)
    assert stored.summary["val/accuracy"] == {"max": pytest.approx(best)}
    scores = json.loads(run.metrics_file.read_text())["test"]
    assert stored.summary["test/accuracy"] == pytest.approx(scores["accuracy"]["value"])
    # the client leaves out what is an empty dictionary when it is online
    assert stored.settings() == without_empty(
        {**run.config, "run_folder": str(run.path), "versions": run.record["versions"]}
    )
    assert [sorted({*a.aliases} & {"best", "last"}) for a in wandb_server.artifacts.values()][-2:] == [
        ["best"],
        ["last"],
    ]
    assert len([address for address in wandb_server.storage if address.endswith(".png")]) == 2
    assert wandb_server.url in output
