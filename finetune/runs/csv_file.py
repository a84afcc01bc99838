"""A table as a CSV file, which is replaced as a whole."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.runs.run import write_atomic


def write_csv(file: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows, whose empty cells are None or left out; without names of columns those that any row has."""
    buffer = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else columns
    writer = csv.DictWriter(buffer, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(file, buffer.getvalue())
