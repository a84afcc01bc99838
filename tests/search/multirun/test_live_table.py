"""The board: a table that moves on a terminal, lines elsewhere, and times that can be believed."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from finetune.runs.history import RunHistory
from finetune.search.multirun.live_table import LiveTable


def screen(width: int = 100, height: int = 20, *, terminal: bool) -> Console:
    """Return a console that writes into a text."""
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=terminal, force_interactive=terminal)


def text_of(console: Console) -> str:
    """Return what a console has written."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def board(console: Console, *, total: int | None = 4, slots: int = 2, mode: str = "max") -> LiveTable:
    """Return a board of jobs."""
    return LiveTable("job", "val/accuracy", mode, total=total, slots=slots, console=console)


def scored(folder: Path, *values: float) -> Path:
    """Return the folder of a run with a score for each epoch."""
    history = RunHistory(folder / "metrics.csv")
    for epoch, value in enumerate(values):
        history.append({"step": epoch, "epoch": epoch, "phase": "full", "val/accuracy": value})
    return folder


def test_without_a_terminal_each_event_is_a_plain_line(tmp_path: Path) -> None:
    console = screen(terminal=False)
    with board(console) as shown:
        shown.begin("0", "seed=0", "cpu:0", folder=scored(tmp_path / "run", 0.5, 0.75, 0.625), epochs=3)
        shown.refresh(now=True)
        shown.end("0", "done")
    lines = text_of(console).splitlines()
    assert lines[0] == "job 0 starts on cpu:0: seed=0"
    assert lines[1].startswith("job 0 done after 0 s, val/accuracy 0.7500 (1 of 4 done, best 0.7500 in job 0")
    assert len(lines) == 2
    assert "\x1b" not in text_of(console)


def test_a_terminal_shows_epoch_value_best_device_and_time_left(tmp_path: Path) -> None:
    console = screen(terminal=True)
    with board(console) as shown:
        shown.begin("0", "seed=0", "gpu:1", folder=scored(tmp_path / "run", 0.75, 0.5), epochs=8)
        shown.lines["0"].started -= 20
        shown.refresh(now=True)
    row = next(line for line in text_of(console).splitlines() if "gpu:1" in line)
    for cell in ("running", "2/8", "0.5000", "0.7500", "20 s", "1 min 00 s", "seed=0"):
        assert cell in row


def test_a_job_that_waited_on_a_cluster_is_shown_where_it_runs_from_then_on() -> None:
    console = screen(terminal=False)
    with board(console) as shown:
        shown.begin("0", "seed=0", "slurm:waiting")
        shown.lines["0"].started -= 100
        shown.follow({"0": "slurm:waiting"})
        shown.follow({"0": "slurm:n1"})
        shown.lines["0"].look()
        assert shown.lines["0"].seconds < 50, "the time in the queue is not the job's"
    assert text_of(console).splitlines() == ["job 0 is sent to slurm: seed=0", "job 0 starts on slurm:n1"]


def test_the_table_fits_the_screen_and_shows_what_runs(tmp_path: Path) -> None:
    shown = board(screen(height=12, terminal=True), total=100)
    for key in map(str, range(50)):
        shown.begin(key, "", "cpu:0")
        if key != "3":
            shown.end(key, "done")
    fitting = [line.name for line in shown.fitting()]
    assert fitting == ["3", "45", "46", "47", "48", "49"]


def test_the_best_is_the_least_where_less_is_better(tmp_path: Path) -> None:
    shown = board(screen(terminal=False), mode="min")
    for key, value in (("0", 0.5), ("1", 0.25), ("2", 0.75)):
        shown.begin(key, "", "cpu:0", folder=scored(tmp_path / key, value))
        shown.end(key, "done")
    assert shown.best is not None
    assert shown.best.name == "1"


def test_a_score_that_is_told_counts_instead_of_the_best_epoch(tmp_path: Path) -> None:
    shown = board(screen(terminal=False))
    shown.begin("0", "", "cpu:0", folder=scored(tmp_path / "run", 0.9))
    shown.end("0", "done", value=0.8)
    assert "best 0.8000 in job 0" in shown.standing()


def test_time_left_is_that_of_the_jobs_ahead_over_the_slots() -> None:
    shown = board(screen(terminal=False), total=7, slots=2)
    assert shown.left is None
    for key in "012":
        shown.begin(key, "", "cpu:0")
    shown.end("0", "done")
    shown.lines["0"].seconds = 60.0
    for key, seconds in (("1", 20.0), ("2", 40.0)):
        shown.lines[key].seconds = seconds
    # 40 and 20 s of those that run, and four that wait
    assert shown.left == pytest.approx((40 + 20 + 4 * 60) / 2)


def test_failures_are_counted_under_their_own_name() -> None:
    shown = board(screen(terminal=False))
    for key, state in (("0", "done"), ("1", "failed"), ("2", "killed by signal SIGKILL"), ("3", "failed")):
        shown.begin(key, "", "cpu:0")
        shown.end(key, state)
    assert shown.standing() == "1 of 4 done, 2 failed, 1 killed by signal SIGKILL"


def test_the_table_is_drawn_at_most_twice_a_second() -> None:
    console = screen(terminal=True)
    with board(console) as shown:
        shown.begin("0", "", "cpu:0")
        shown.refresh(now=True)
        before = len(text_of(console))
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            shown.refresh()
        assert len(text_of(console)) == before
