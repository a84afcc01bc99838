"""The runs table as a file: CSV, JSON, or a page that sorts and searches itself."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

from finetune.errors import ConfigError, nearest
from finetune.report.runs_table.entries import EntryValue, RunEntry
from finetune.runs.csv_file import CsvRows
from finetune.runs.run import write_atomic

ENDINGS = (".csv", ".json", ".html")
_ENDS = ("low", "high")


def check_output(file: Path) -> None:
    """Check that a list can be written to a file.

    Raises:
        ConfigError: It is a folder, or its ending is unknown.
    """
    if file.is_dir():
        raise ConfigError(f"output={file} is a folder. Name a file in it: output={file / 'runs.csv'}")
    if file.suffix.lower() not in ENDINGS:
        hint = nearest(file.suffix, ENDINGS)
        raise ConfigError(f"output={file} has an unknown ending. Use one of {', '.join(ENDINGS)}.{hint}")


def write_rows(file: Path, entries: Sequence[RunEntry], columns: tuple[str, ...], title: str) -> None:
    """Write rows in the form that the file's ending names; metrics are followed by the ends of their intervals."""
    names = with_ends(columns, entries)
    rows = [[entry.value(name) for name in names] for entry in entries]
    forms = {".csv": as_csv, ".json": as_json, ".html": as_page}
    try:
        write_atomic(file, forms[file.suffix.lower()](names, rows, title))
    except OSError as error:
        raise ConfigError(f"output={file} cannot be written ({error.strerror}). Name another file.") from error


def with_ends(columns: tuple[str, ...], entries: Sequence[RunEntry]) -> list[str]:
    """Return the columns, and the ends of the intervals of those that have one."""
    names: list[str] = []
    for key in columns:
        bounded = any(entry.interval(key) is not None for entry in entries)
        names += [key, *(f"{key}_{end}" for end in _ENDS if bounded)]
    return list(dict.fromkeys(names))


def as_csv(names: Sequence[str], rows: Sequence[Sequence[EntryValue]], title: str) -> str:
    """Return rows as CSV; a value that is not there is an empty cell."""
    buffer = io.StringIO()
    writer = CsvRows(buffer)
    for row in (names, *rows):
        writer.append(row)
    return buffer.getvalue()


def as_json(names: Sequence[str], rows: Sequence[Sequence[EntryValue]], title: str) -> str:
    """Return rows as a list of objects; a value that is not there is null."""
    return json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2, ensure_ascii=False) + "\n"


def as_page(names: Sequence[str], rows: Sequence[Sequence[EntryValue]], title: str) -> str:
    """Return rows as a page."""
    from finetune.report.html.blocks import Column, Section, Table
    from finetune.report.html.render import render

    places = range(len(names))
    columns = tuple(
        Column(
            "time (s)" if names[place] == "time" else names[place],
            digits=4 if any(isinstance(row[place], float) for row in rows) else None,
        )
        for place in places
    )
    cells = tuple(tuple(str(cell) if isinstance(cell, bool) else cell for cell in row) for row in rows)
    table = Table(title, columns, cells, caption="Click a heading to sort; a value that a row lacks is a dash.")
    return render(title, [Section("list", "All values", (table,))], nav=False)
