"""Tables of labels on disk: reading a CSV or Parquet file, and what its cells mean."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finetune.data.sources.table_builder import SPLIT_NAMES
from finetune.errors import ConfigError, DataError, nearest
from finetune.runs.csv_file import read_cell

YES_NO = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": False}
DELIMITERS = (",", ";", "\t")

# columns of cells as text without spaces around it; a cell without a value is an empty text
Cells = dict[str, list[str]]


def read_cells(file: Path) -> Cells:
    """Return the columns of a CSV (comma, semicolon or tab) or Parquet file.

    Raises:
        DataError: It cannot be read as a table, or has no rows.
    """
    try:
        cells = _read_parquet(file) if file.suffix.lower() in (".parquet", ".pq") else _read_csv(file)
    except (OSError, ValueError, KeyError, csv.Error, pa.ArrowException) as error:
        first = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(f"{file} cannot be read as a table: {first}. Expected CSV (UTF-8) or Parquet.") from error
    if not any(cells.values()):
        raise DataError(f"{file} has no rows. Expected a header and a row per image.")
    return cells


def _read_parquet(file: Path) -> Cells:
    """Return the columns of text, numbers and dates; others, such as encoded images, are not read at all."""
    fields = [field for field in pq.read_schema(file) if not _is_composite(field.type)]
    table = pq.read_table(file, columns=[field.name for field in fields])
    return {name.strip(): [_text(cell) for cell in table[name].to_pylist()] for name in table.column_names}


def _is_composite(kind: pa.DataType) -> bool:
    types = pa.types
    binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return bool(binary or types.is_nested(kind))


def _text(cell: Any) -> str:
    return "" if cell is None or (isinstance(cell, float) and math.isnan(cell)) else str(cell).strip()


def _read_csv(file: Path) -> Cells:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        header = stream.readline()
        delimiter = "\t" if file.suffix.lower() == ".tsv" else max(DELIMITERS, key=header.count)
        stream.seek(0)
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        names = [name.strip() for name in next(reader, [])]
        twice = sorted({name for name in names if name and names.count(name) > 1})
        if twice:
            raise ValueError(f"two columns are called '{twice[0]}'")
        rows = [row for row in _whole_rows(reader, len(names))]
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def _whole_rows(reader: Any, width: int) -> Iterable[list[str]]:
    """Yield rows of `width` cells; a blank line is none, and a cell left out at the end is empty."""
    for row in reader:
        cells = [read_cell(cell.strip()) for cell in row]
        if any(cells[width:]):
            raise ValueError(f"line {reader.line_num} has {len(cells)} cells under {width} columns")
        if any(cells):
            yield cells[:width] + [""] * (width - len(cells))


def column_of(cells: Cells, name: str, key: str, file: str) -> list[str]:
    """Return a column.

    Raises:
        DataError: There is none of that name; says which setting names it.
    """
    if name not in cells:
        raise DataError(
            f"{file} has no column '{name}' of text or numbers (it has: {', '.join(cells)}).{nearest(name, cells)} "
            f"Set data.{key} to one that it has."
        )
    return cells[name]


def require_all(values: Sequence[str], name: str, file: str) -> None:
    """Check that no cell of a column is empty.

    Raises:
        DataError: Some are.
    """
    empty = [row for row, value in enumerate(values) if not value]
    if empty:
        raise DataError(
            f"{len(empty):,} of {len(values):,} rows of {file} have no {name} (first: row {empty[0] + 1} below the "
            "header). Fill them in, or remove the rows."
        )


def splits_of(cells: Cells, name: str, file: str) -> list[str | None]:
    """Return the split of each row, None where the cell is empty.

    Raises:
        DataError: A cell holds something else.
    """
    found = set(cells[name])
    for word in sorted(found):
        if word and word.lower() not in SPLIT_NAMES:
            raise DataError(
                f"The column '{name}' of {file} holds '{word}'; expected train, val, test or nothing."
                f"{nearest(word, SPLIT_NAMES)}"
            )
    return [SPLIT_NAMES[value.lower()] if value else None for value in cells[name]]


def check_columns_given(label_columns: Sequence[str], group_columns: Sequence[str], separator: str | None) -> None:
    """Check the settings that name several columns.

    Raises:
        ConfigError: One is a single word, names a column twice, or two exclude each other.
    """
    for key, names in (("label_columns", label_columns), ("group_columns", group_columns)):
        if isinstance(names, str):
            raise ConfigError(f"data.{key}={names} is one word; expected a list. Type data.{key}=[{names}].")
        if len(set(names)) < len(names):
            raise ConfigError(f"data.{key} names a column twice. Leave one out.")
    if label_columns and separator is not None:
        raise ConfigError("data.label_columns and data.label_separator exclude each other. Set one of them to null.")
    if separator == "":
        raise ConfigError("data.label_separator is empty. Set it to what stands between labels, or to null.")
