"""The history survives kills, learns columns as it goes, and gives back the numbers it was given."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.runs.history import RunHistory

ROWS = [
    {"step": 10, "epoch": 0, "phase": "probe", "train/loss_step": 2.5},
    {"step": 20, "epoch": 0, "phase": "probe", "train/loss": 2.0, "val/accuracy": 0.5},
    {"step": 30, "epoch": 1, "phase": "finetune", "train/loss": 1.0, "val/accuracy": 0.75},
]


@pytest.fixture
def history(tmp_path: Path) -> RunHistory:
    found = RunHistory(tmp_path / "metrics.csv")
    for row in ROWS:
        found.append(row)
    return found


def test_rows_read_back_as_they_were_appended(history: RunHistory) -> None:
    assert history.read() == ROWS
    assert RunHistory(history.path).read() == ROWS


def test_a_row_is_on_the_disk_when_append_returns(history: RunHistory) -> None:
    history.append({"step": 40, "epoch": 1, "phase": "finetune", "train/loss": 0.5})
    assert history.path.read_bytes().endswith(b"\n")
    assert len(pd.read_csv(history.path)) == 4


def test_new_columns_come_last_and_step_epoch_phase_first(history: RunHistory) -> None:
    columns = list(pd.read_csv(history.path).columns)
    assert columns == ["step", "epoch", "phase", "train/loss_step", "train/loss", "val/accuracy"]


def test_a_known_column_is_appended_without_rewriting_the_file(history: RunHistory) -> None:
    before = history.path.stat().st_ino
    history.append({"step": 40, "epoch": 1, "phase": "finetune", "train/loss": 0.5})
    assert history.path.stat().st_ino == before


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_line_torn_by_a_kill_is_dropped_and_the_next_row_is_whole(history: RunHistory, cut: int) -> None:
    history.path.write_bytes(history.path.read_bytes()[:-cut])
    torn = RunHistory(history.path)
    kept = torn.read()
    assert kept == ROWS[: len(kept)]
    torn.append(ROWS[2])
    assert RunHistory(history.path).read() == [*kept, ROWS[2]]


def test_reading_leaves_the_file_of_a_live_run_alone(history: RunHistory) -> None:
    content = history.path.read_bytes()[:-3]
    history.path.write_bytes(content)
    RunHistory(history.path).read()
    assert history.path.read_bytes() == content


def test_an_empty_file_becomes_a_history(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").touch()
    RunHistory(tmp_path / "metrics.csv").append(ROWS[1])
    assert RunHistory(tmp_path / "metrics.csv").read() == [ROWS[1]]


def test_a_letter_torn_in_the_middle_is_dropped(tmp_path: Path) -> None:
    history = RunHistory(tmp_path / "metrics.csv")
    for step in (1, 2):
        history.append({"step": step, "epoch": 0, "phase": "Köpfe"})
    content = history.path.read_bytes()
    history.path.write_bytes(content[: content.rindex("ö".encode()) + 1])
    assert [row["step"] for row in RunHistory(history.path).read()] == [1]


@pytest.mark.parametrize(("step", "left"), [(0, 0), (10, 1), (25, 2), (30, 3), (99, 3)])
def test_truncate_after_keeps_the_rows_up_to_a_step(history: RunHistory, step: int, left: int) -> None:
    history.truncate_after(step)
    assert history.read() == RunHistory(history.path).read() == ROWS[:left]
    history.append(ROWS[0])
    assert RunHistory(history.path).read() == [*ROWS[:left], ROWS[0]]


@given(st.floats(allow_nan=False), st.floats(allow_nan=False, width=32))
def test_floats_make_a_round_trip(tmp_path_factory: pytest.TempPathFactory, double: float, single: float) -> None:
    history = RunHistory(tmp_path_factory.mktemp("history") / "metrics.csv")
    history.append({"step": 1, "python": double, "double": np.float64(double), "single": np.float32(single)})
    (row,) = RunHistory(history.path).read()
    assert (row["python"], row["double"], row["single"]) == (double, double, single)


def test_nan_and_missing_values_are_told_apart(tmp_path: Path) -> None:
    history = RunHistory(tmp_path / "metrics.csv")
    history.append({"step": 1, "loss": float("nan"), "rate": None})
    (row,) = RunHistory(history.path).read()
    assert math.isnan(row["loss"])
    assert "rate" not in row


def test_a_phase_is_a_word_even_if_it_looks_like_a_number(tmp_path: Path) -> None:
    history = RunHistory(tmp_path / "metrics.csv")
    for name in ("1", "nan", "a, b", 'say "x"'):
        history.append({"step": 1, "phase": name})
    assert [row["phase"] for row in RunHistory(history.path).read()] == ["1", "nan", "a, b", 'say "x"']
