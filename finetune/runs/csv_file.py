"""Tables as CSV files: one way of writing cells, which no name of a file or class can break.

A cell that a spreadsheet would compute, since it begins with = + - or @ and is no number, begins with an apostrophe
there; `read_cell` takes it away again. A carriage return in a cell does not end its row.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from finetune.runs.run import write_atomic

FORMULA = ("=", "+", "-", "@", "\t", "\r")
_END = "\r\n"  # of rows to Python's writer, which quotes cells that hold a character of it


class CsvRows:
    """Writes rows to a stream."""

    def __init__(self, stream: TextIO) -> None:
        """Write to an open stream, which translates no ends of lines."""
        self._stream = stream
        self._writer = csv.writer(self, lineterminator=_END)

    def write(self, line: str) -> None:
        """Write a row as Python's writer made it, with our end of a line."""
        self._stream.write(line.removesuffix(_END) + "\n")

    def append(self, cells: Iterable[Any]) -> None:
        """Write a row; None is an empty cell."""
        self._writer.writerow([guarded_cell(cell) for cell in cells])


def guarded_cell(cell: Any) -> Any:
    """Return a cell as it is written: a text that would be a formula with an apostrophe before it."""
    risky = isinstance(cell, str) and (cell.startswith(FORMULA) or (cell[:1] == "'" and cell[1:].startswith(FORMULA)))
    return f"'{cell}" if risky and not _is_number(cell) else cell


def read_cell(cell: str) -> str:
    """Return a cell as it was before it was written."""
    return cell[1:] if cell[:1] == "'" and cell[1:].lstrip("'").startswith(FORMULA) else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def write_csv(file: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows, whose empty cells are None or left out; without names of columns those that any row has."""
    buffer = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else columns
    writer = CsvRows(buffer)
    writer.append(names)
    for row in rows:
        writer.append(row.get(name) for name in names)
    write_atomic(file, buffer.getvalue())
