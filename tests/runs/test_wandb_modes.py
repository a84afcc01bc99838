"""Whether a run is tracked online, offline or not at all, and what is said where that cannot be."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from wandb_backend import Backend
from wandb_parts import ACCURACIES, create, log_epochs, start, tracked
from wandb_server import KEY

from finetune.errors import ConfigError
from finetune.runs.run import Run

pytestmark = pytest.mark.usefixtures("logged_out")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create(tmp_path / "runs" / "one")


def test_without_a_key_auto_is_offline_and_says_how_to_view_it(run: Run) -> None:
    tracker = tracked(run, mode="auto")
    tracker.finish(0)
    folder = os.path.relpath(run.path / "wandb") if run.path.is_relative_to(Path.cwd()) else run.path / "wandb"
    assert tracker.how_to_view.count("\n") == 0
    assert f"`wandb leet {folder}`" in tracker.how_to_view
    assert f"`wandb sync {folder}/offline-run-*`" in tracker.how_to_view


def test_a_stored_login_makes_auto_online(tmp_path: Path, run: Run, wandb_server: Backend, monkeypatch: Any) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text(f"machine {urlsplit(wandb_server.url).netloc}\n  login user\n  password {KEY}\n")
    netrc.chmod(0o600)
    tracker = tracked(run, mode="auto")
    tracker.finish(0)
    netrc.unlink()
    assert list(wandb_server.runs) == [tracker.id]


@pytest.mark.parametrize(("said", "offline"), [("offline", True), ("online", False)])
def test_auto_follows_the_environment(
    run: Run, wandb_server: Backend, monkeypatch: Any, said: str, offline: bool
) -> None:
    monkeypatch.setenv("WANDB_MODE", said)
    tracked(run, mode="auto").finish(0)
    assert (len(wandb_server.runs) == 0) == offline


@pytest.mark.parametrize("how", ["config", "environment"])
def test_disabled_means_no_tracker_and_no_file(run: Run, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled" if how == "environment" else "online")
    assert start(run, mode="auto" if how == "environment" else "disabled") is None
    assert "wandb" not in run.record
    assert not (run.path / "wandb").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "online"}, "no key.*wandb login.*mode=offline"),
        ({"mode": "onlin"}, "logger.wandb.mode=onlin is not known.*Did you mean 'online'"),
        ({"checkpoints": "bset"}, "logger.wandb.checkpoints=bset is not known.*Did you mean 'best'"),
        ({"tags": ["x" * 65]}, "1 to 64 characters.*has 65"),
        ({"project": "a/b"}, "W&B refuses the run: Invalid project name 'a/b'"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(run: Run, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        start(run, **changes)
    assert "\n" not in str(caught.value)


def test_a_misspelt_mode_in_the_environment_is_one_clear_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(ConfigError, match="WANDB_MODE=ofline is not known.*Did you mean 'offline'"):
        start(run, mode="auto")


def test_a_malformed_key_is_one_clear_line(run: Run, wandb_server: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(ConfigError, match="W&B refuses the key.*mode=offline") as caught:
        start(run, mode="online")
    assert "\n" not in str(caught.value)


def test_a_dead_server_costs_no_run(run: Run, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    began = time.monotonic()
    tracker = tracked(run, mode="online")
    assert time.monotonic() - began < 15
    tracker.finish(0)
    assert run.record["wandb"]["mode"] == "offline"
    (said,) = [record.getMessage() for record in caplog.records if "gives no run" in record.getMessage()]
    assert "http://127.0.0.1:9" in said and "wandb sync" in said and "\n" not in said


@pytest.mark.parametrize("fault", ["close", "hang", "500", "429"])
def test_a_server_that_is_out_of_order_at_the_start_costs_no_run(run: Run, wandb_server: Backend, fault: str) -> None:
    wandb_server.fault = fault
    began = time.monotonic()
    tracker = tracked(run, mode="online")
    assert time.monotonic() - began < 15
    log_epochs(tracker)
    wandb_server.fault = ""
    wandb_server.mended.set()
    tracker.finish(0)
    assert (run.record["wandb"]["mode"], tracker.url) == ("offline", None)
    assert "wandb sync" in tracker.how_to_view


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["close", "hang", "500", "401"])
def test_a_server_that_fails_in_mid_run_costs_no_run_and_gets_it_all_later(
    run: Run, wandb_server: Backend, fault: str
) -> None:
    tracker = tracked(run, mode="online")
    log_epochs(tracker)
    wandb_server.fault = fault
    log_epochs(tracker, first=3)
    tracker.log_summary({"test/accuracy": 0.5})
    began = time.monotonic()
    tracker.finish(0)
    assert time.monotonic() - began < 40
    wandb_server.fault = ""
    wandb_server.mended.set()
    environment = {**os.environ, "WANDB_MODE": "online", "WANDB_ERROR_REPORTING": "false"}
    subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), "sync", "--no-skip-online", str(tracker.folder)],
        check=True,
        env=environment,
    )
    stored = wandb_server.runs[tracker.id]
    assert [row["val/accuracy"] for row in stored.rows if "val/accuracy" in row] == [*ACCURACIES, *ACCURACIES]
