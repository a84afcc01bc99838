"""Labels in the cells of a table: a name, names between separators, a list written as text, or columns of 0 and 1."""

import ast
import logging
import re
from collections.abc import Sequence
from typing import Any

from finetune.data.sources.table_reader import YES_NO, Cells, column_of, require_all
from finetune.errors import DataError

log = logging.getLogger(__name__)

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_ITEM = rf"(?:{_QUOTED}|[^\s,'\"\[\]]+(?: [^\s,'\"\[\]]+)*)"
_LIST = re.compile(rf"\[\s*(?:{_ITEM}(?:\s*,\s*{_ITEM})*\s*,?)?\s*\]")
_ITEMS = re.compile(_ITEM)
_LIKE_A_LIST = re.compile(r"\[.*['\",].*\]|\[\s*\]", re.DOTALL)


def labels_of(cells: Cells, column: str, columns: Sequence[str], separator: str | None, file: str) -> list[Any]:
    """Return a label per row, or a tuple of labels where an image may have several.

    Columns of 0 and 1, and lists, that hold one label in every row are one label per image.

    Raises:
        DataError: A column is missing or holds something else, or a row has no label.
    """
    if columns:
        return one_each(labels_of_columns(cells, columns, file), f"the columns {', '.join(columns[:3])}", file)
    values = column_of(cells, column, "label_column", file)
    lists = read_lists(values, column, file)
    if lists is not None:
        return list(lists) if separator is not None else one_each(lists, f"the lists of the column {column}", file)
    if separator is not None:  # an empty cell has none
        return [tuple(sorted({part.strip() for part in value.split(separator)} - {""})) for value in values]
    require_all(values, column, file)
    return list(values)


def one_each(rows: Sequence[tuple[str, ...]], what: str, file: str) -> list[Any]:
    """Return the only label of each row where all rows have one and there are several labels, else the tuples."""
    if len(set(rows)) < 2 or any(len(row) != 1 for row in rows):
        return list(rows)
    log.info("In %s, %s give every image one label: it is read as one label per image.", file, what)
    return [row[0] for row in rows]


def labels_of_columns(cells: Cells, columns: Sequence[str], file: str) -> list[tuple[str, ...]]:
    """Return the labels of each row from columns of 0 and 1, one per label.

    Raises:
        DataError: A column is missing, or holds something else.
    """
    marks = []
    for name in columns:
        values = [value.lower() for value in column_of(cells, name, "label_columns", file)]
        odd = next((value for value in values if value not in YES_NO), None)
        if odd is not None:
            raise DataError(f"The column '{name}' of {file} holds '{odd}'; a label column holds 0 or 1.")
        marks.append([YES_NO[value] for value in values])
    return [tuple(name for name, mark in zip(columns, row, strict=True) if mark) for row in zip(*marks, strict=True)]


def read_lists(values: Sequence[str], column: str, file: str) -> list[tuple[str, ...]] | None:
    """Return the labels of cells that are lists written as text, such as ['a', 'b']; None where no cell looks so.

    An empty cell is an empty list.

    Raises:
        DataError: Some cells look so and cannot be read, or others are no lists.
    """
    if not any(_LIKE_A_LIST.fullmatch(value) for value in values):
        return None
    odd = [(row, value) for row, value in enumerate(values, 1) if value and not _LIST.fullmatch(value)]
    if odd:
        row, value = odd[0]
        raise DataError(
            f"The column '{column}' of {file} holds lists, and {len(odd):,} of its cells cannot be read as one (first: "
            f"{value} in row {row} below the header). Write ['a', 'b'] in all, or a|b with data.label_separator='|'."
        )
    return [tuple(sorted({_item(part) for part in _ITEMS.findall(value)} - {""})) for value in values]


def _item(part: str) -> str:
    """Return a label of a list without its quotes."""
    return str(ast.literal_eval(part)).strip() if part[0] in "'\"" else part
