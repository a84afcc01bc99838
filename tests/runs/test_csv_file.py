"""CSV files: no name of a file or class breaks a row or becomes a formula, and what was written is read."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.sources.table_reader import read_cells
from finetune.runs.csv_file import CsvRows, guarded_cell, read_cell, write_csv

NAMES = ["a\rb", "a\nb", "a\r\nb", 'a"b', "a,b", "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "é", "'=x"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_cell_of_one_row_and_is_read_as_it_was(name: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [{"path": name, "label": "x"}, {"path": "b", "label": None}])
    rows = list(csv.DictReader((tmp_path / "t.csv").open(newline="", encoding="utf-8")))
    assert [read_cell(row["path"]) for row in rows] == [name, "b"] and rows[1]["label"] == ""
    assert not rows[0]["path"].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert [cell.strip() for cell in read_cells(tmp_path / "t.csv")["path"]] == [name.strip(), "b"]


@pytest.mark.parametrize("number", ["-1", "-0.25", "+3", "-1e-5", "-inf", -2, -0.5])
def test_numbers_stay_numbers(number: str | float) -> None:
    assert guarded_cell(number) == number


@given(st.lists(st.text(alphabet=st.sampled_from("a'=+-@\t\r\n\",1"), min_size=1), min_size=1, max_size=3))
def test_any_cells_are_read_as_they_were(cells: list[str]) -> None:
    stream = io.StringIO(newline="")
    CsvRows(stream).append(cells)
    (row,) = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    assert [read_cell(cell) for cell in row] == cells
