"""A table that names images and their labels."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.data.image_stores import FileStore, image_suffixes
from finetune.data.sources.label_cells import labels_of
from finetune.data.sources.table_builder import build_table, existing_path, rename_val_split
from finetune.data.sources.table_reader import (
    Cells,
    check_columns_given,
    column_of,
    read_cells,
    require_all,
    splits_of,
)
from finetune.data.table import ImageTable
from finetune.errors import DataError, nearest

log = logging.getLogger(__name__)

# names that stored tables and predictions use themselves
RESERVED = ("id", "path", "label", "split", "digest", "target", "predicted")


def csv(
    path: str,
    root: str | None = None,
    path_column: str = "path",
    label_column: str = "label",
    label_columns: Sequence[str] = (),
    label_separator: str | None = None,
    split_column: str = "split",
    group_columns: Sequence[str] = (),
    val_means: str = "val",
) -> ImageTable:
    """Return the images of a CSV or Parquet table.

    Args:
        path: The table.
        root: What relative image paths are relative to; None for the table's folder.
        path_column: Column of image paths.
        label_column: Column of labels.
        label_columns: Columns of 0 and 1, one per label, in place of `label_column`: several labels per image, or one
            where every row has one.
        label_separator: Separates several labels in `label_column`; None for one label per image.
        split_column: Column of splits; it may be missing where it is called split, and its cells may be empty.
        group_columns: Columns that say which group an image belongs to.
        val_means: As for `folder`.

    Raises:
        DataError: The table cannot be read, lacks a column or a value, or names images twice or that are not there.
        ConfigError: The settings contradict each other.
    """
    check_columns_given(label_columns, group_columns, label_separator)
    file = existing_path(path, "The table", "data.path")
    if file.is_dir():
        raise DataError(
            f"data.path={path} is a folder. Name a CSV or Parquet file, or use data=folder data.root={path}."
        )
    cells = read_cells(file)
    names = column_of(cells, path_column, "path_column", path)
    require_all(names, path_column, path)
    base = existing_path(root, "The folder", "data.root") if root else file.parent
    columns: dict[str, list[Any]] = {
        "id": with_endings([image_id(name, base) for name in names], base, path),
        "label": labels_of(cells, label_column, label_columns, label_separator, path),
        "split": given_splits(cells, split_column, path),
        **{name: group_of(cells, name, path) for name in group_columns},
    }
    columns = drop_repeated_rows(columns, path)
    columns["path"] = [os.path.join(base, name) for name in columns["id"]]
    check_present(columns, path, base)
    columns["split"] = rename_val_split(columns["split"], val_means)
    several = any(isinstance(label, tuple) for label in columns["label"])
    return build_table(columns, FileStore(), groups=group_columns, multilabel=several, labels=label_columns)


def image_id(name: str, base: Path) -> str:
    """Return the id of an image: its path from the folder where there is one, so that it holds when all is moved."""
    place = os.path.normpath(os.path.join(base, os.path.expanduser(name)))
    inside = os.path.join(base, "")
    if place.startswith(inside):
        return place[len(inside) :]
    return place if os.path.isabs(os.path.expanduser(name)) else os.path.relpath(place, base)


def with_endings(ids: list[str], base: Path, file: str) -> list[str]:
    """Return ids of images, those without a file ending with that of the one image of this name.

    Raises:
        DataError: Several images have the name.
    """
    missing = [name for name in ids if not os.path.isfile(os.path.join(base, name))]
    folders = {os.path.dirname(os.path.join(base, name)) for name in missing}
    found: dict[str, list[str]] = {}
    for folder in filter(os.path.isdir, folders):
        for entry in sorted(os.listdir(folder)):
            stem, ending = os.path.splitext(entry)
            if ending.lower() in image_suffixes():
                found.setdefault(os.path.join(folder, stem), []).append(ending)
    endings = {name: found[place] for name in missing if (place := os.path.join(base, name)) in found}
    several = [name for name, each in endings.items() if len(each) > 1]
    if several:
        name = several[0]
        raise DataError(
            f"{len(several):,} names of {file} have no file ending, and several images are called so (first: {name}, "
            f"with {' and '.join(endings[name])}). Write the ending."
        )
    if endings:
        first, (ending,) = next(iter(endings.items()))
        log.info("%s names of %s have no file ending; it was found (first: %s%s).", f"{len(endings):,}", file, first,
                 ending)  # fmt: skip
    return [f"{name}{endings[name][0]}" if name in endings else name for name in ids]


def given_splits(cells: Cells, name: str, file: str) -> list[str | None]:
    """Return the splits that a table gives, None for all where it has no column of them."""
    if name in cells or name != "split":
        column_of(cells, name, "split_column", file)
        return splits_of(cells, name, file)
    similar = nearest(name, cells)
    if similar:
        log.warning("%s has no column 'split', so splits are made.%s Then set data.split_column.", file, similar)
    return [None] * len(next(iter(cells.values())))


def group_of(cells: Cells, name: str, file: str) -> list[str | None]:
    """Return the group of each row, None where the cell is empty: such an image stands alone.

    Raises:
        DataError: The column is missing, or is called like one of our own.
    """
    values = column_of(cells, name, "group_columns", file)
    if name in RESERVED or name.startswith("probability/"):
        raise DataError(f"A group column cannot be called '{name}', as a column of results is. Rename it in {file}.")
    return [value or None for value in values]


def drop_repeated_rows(columns: dict[str, list[Any]], file: str) -> dict[str, list[Any]]:
    """Return the columns with one row per image; a row that says the same again is left out with a warning.

    Raises:
        DataError: Rows of one image differ.
    """
    first: dict[str, tuple[Any, ...]] = {}
    kept: list[int] = []
    twice: dict[str, None] = {}
    differing: dict[str, str] = {}
    for number, row in enumerate(zip(*columns.values(), strict=True)):
        if row[0] not in first:
            first[row[0]] = row
            kept.append(number)
        elif first[row[0]] == row:
            twice[row[0]] = None
        else:
            pairs = zip(columns, first[row[0]], row, strict=True)
            differing.setdefault(row[0], next(name for name, one, other in pairs if one != other))
    if differing:
        name, what = next(iter(differing.items()))
        raise DataError(
            f"{file} names {len(differing):,} images more than once, and not alike (first: {name}, with another "
            f"{what}). Keep one row of each image."
        )
    if twice:
        log.warning(
            "%s names %s images more than once (first: %s). They are used once.",
            file,
            f"{len(twice):,}",
            next(iter(twice)),
        )
    return {name: [values[number] for number in kept] for name, values in columns.items()}


def check_present(columns: dict[str, list[Any]], file: str, base: Path) -> None:
    """Check that all images are there.

    Raises:
        DataError: Some are not.
    """
    pairs = zip(columns["id"], columns["path"], strict=True)
    missing = [name for name, place in pairs if not os.path.isfile(place)]
    if missing:
        hint = " Write / in place of \\." if "\\" in missing[0] else ""
        raise DataError(
            f"{len(missing):,} of {len(columns['id']):,} images of {file} do not exist below {base} (first: "
            f"{missing[0]}). Set data.root to the folder that the paths start from.{hint}"
        )
