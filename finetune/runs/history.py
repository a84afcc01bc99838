"""The history of a run: metrics.csv, one row per epoch or logging interval, written as the run goes."""

import csv
import io
import numbers
from pathlib import Path
from typing import Any

from finetune.runs.csv_file import CsvRows, write_csv

FIRST = ("step", "epoch", "phase")
_WORDS = ("phase",)


class RunHistory:
    """Rows of values by step; new columns may appear at any time.

    Attributes:
        path: The CSV file.
    """

    def __init__(self, path: Path) -> None:
        """Read the file where it exists; a line torn by a kill is left out, and gone from the file at the next row."""
        self.path = path
        self.whole = False
        self.rows = self._load()
        self.columns = list(FIRST)
        for row in self.rows:
            self._learn(row)

    def _load(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        lines = content[: content.rfind(b"\n") + 1]
        rows = list(csv.DictReader(io.StringIO(lines.decode(), newline="")))
        kept = [row for row in rows if None not in row and None not in row.values()]
        self.whole = bool(lines) and lines == content and kept == rows
        return kept

    def _learn(self, row: dict[str, Any]) -> bool:
        new = [name for name in row if name not in self.columns]
        self.columns += new
        return bool(new)

    def append(self, row: dict[str, Any]) -> None:
        """Add a row; it is on the disk when this returns."""
        text = {name: _text(value) for name, value in row.items()}
        self.rows.append(text)
        if self._learn(text) or not self.whole:
            self._rewrite()
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            CsvRows(file).append(text.get(name) for name in self.columns)
            file.flush()

    def truncate_after(self, step: int) -> None:
        """Drop the rows of later steps, which a resumed run writes again."""
        self.rows = [row for row in self.rows if int(row["step"]) <= step]
        if self.path.exists():
            self._rewrite()

    def read(self) -> list[dict[str, Any]]:
        """Return the rows; numbers as numbers, empty cells left out."""
        return [
            {name: cell if name in _WORDS else _value(cell) for name, cell in row.items() if cell != ""}
            for row in self.rows
        ]

    def _rewrite(self) -> None:
        write_csv(self.path, self.rows, self.columns)
        self.whole = True


def _text(value: Any) -> str:
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return repr(float(value))  # the shortest text that reads back as the same number
    return "" if value is None else str(value)


def _value(cell: str) -> Any:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
