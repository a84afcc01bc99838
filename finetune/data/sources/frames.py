"""Sequences of images: folders of frames, or a table that says to which sequence a frame belongs and at which place."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.data.image_stores import FileStore
from finetune.data.sequences.frame_store import SequenceStore, evenly_spaced
from finetune.data.sources.folders import direct_images, files_below, split_folders, subfolders
from finetune.data.sources.label_cells import labels_of
from finetune.data.sources.table_builder import build_table, existing_path, natural_key, rename_val_split
from finetune.data.sources.table_reader import check_columns_given, column_of, read_cells, require_all
from finetune.data.sources.tables import check_present, given_splits, group_of, image_id, with_endings
from finetune.data.table import ImageTable
from finetune.errors import DataError

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def sequences(root: str, frames: int, val_means: str = "auto") -> ImageTable:
    """Return the sequences of class folders, `root/<class>/<sequence>/...` or `root/<split>/<class>/<sequence>/...`.

    A folder within a class folder that holds images is a sequence; they are its frames, in the order of their names,
    in which numbers count as numbers.

    Args:
        root: The folder.
        frames: Of a sequence at most; of longer ones as many are looked at, evenly spaced.
        val_means: As for `folder`.

    Raises:
        DataError: There is no such folder, or it holds no sequences in class folders.
        ConfigError: `frames` or `val_means` makes no sense.
    """
    top = existing_path(root, "The folder", "data.root")
    if not top.is_dir():
        raise DataError(f"data.root={root} is a file. Name the folder above the class folders, or use a table "
                        f"(data=sequence_table data.path={root}).")  # fmt: skip
    splits: dict[Path, str | None] = {**split_folders(top)}
    rows: list[tuple[Path, str, str | None]] = []
    stray: list[Path] = []
    for above, split in (splits or {top: None}).items():
        for place in subfolders(above):
            rows += [(found, place.name, split) for found in sequence_folders(place) if found != place]
            stray += direct_images(place)
    if stray or not rows:
        found = (
            f"{len(stray):,} images lie in class folders themselves (first: {stray[0]})" if stray else "none is there"
        )
        raise DataError(
            f"{root} must hold a folder for each sequence, {root}/<class>/<sequence>/<frame> or "
            f"{root}/train/<class>/<sequence>/<frame>, and {found}. Use data=folder for single images."
        )
    names = [place.relative_to(top).as_posix() for place, _, _ in rows]
    columns: dict[str, list[Any]] = {
        "id": names,
        "path": names,
        "label": [label for _, label, _ in rows],
        "split": rename_val_split([split for _, _, split in rows], val_means),
    }
    kept = {name: frames_in(place, frames) for name, (place, _, _) in zip(names, rows, strict=True)}
    return build_table(columns, SequenceStore(FileStore(), kept, frames))


def sequence_folders(above: Path) -> list[Path]:
    """Return the folders that hold images, the one itself and those below it, by name."""
    images, _ = files_below(above)
    return sorted({image.parent for image in images}, key=lambda place: natural_key(str(place)))


def frames_in(place: Path, limit: int) -> tuple[str, ...]:
    """Return the images of a folder that are looked at, in the order of their names."""
    images = sorted(direct_images(place), key=lambda image: natural_key(image.name))
    return tuple(str(images[number]) for number in evenly_spaced(len(images), limit))


def sequence_table(
    path: str,
    frames: int,
    root: str | None = None,
    sequence_column: str = "sequence",
    order_column: str = "frame",
    path_column: str = "path",
    label_column: str = "label",
    label_columns: Sequence[str] = (),
    label_separator: str | None = None,
    split_column: str = "split",
    group_columns: Sequence[str] = (),
    val_means: str = "val",
) -> ImageTable:
    """Return the sequences of a CSV or Parquet table with a row per frame.

    Args:
        path: The table.
        frames: Of a sequence at most; of longer ones as many are looked at, evenly spaced.
        root: What relative image paths are relative to; None for the table's folder.
        sequence_column: Column that names the sequence of a frame.
        order_column: Column of a frame's place in its sequence; numbers, or words that sort.
        path_column: As for `csv`, like all others; label, split and groups are the same in all rows of a sequence.
        label_column: As for `csv`.
        label_columns: As for `csv`.
        label_separator: As for `csv`.
        split_column: As for `csv`.
        group_columns: As for `csv`.
        val_means: As for `csv`.

    Raises:
        DataError: The table cannot be read, lacks a column or a value, names images that are not there, or contradicts
            itself about a sequence.
        ConfigError: The settings contradict each other.
    """
    check_columns_given(label_columns, group_columns, label_separator)
    file = existing_path(path, "The table", "data.path")
    if file.is_dir():
        raise DataError(f"data.path={path} is a folder. Name a table, or use data=sequences data.root={path}.")
    cells = read_cells(file)
    named = {}
    for key, name in (("path", path_column), ("sequence", sequence_column), ("order", order_column)):
        named[key] = column_of(cells, name, f"{key}_column", path)
        require_all(named[key], name, path)
    base = existing_path(root, "The folder", "data.root") if root else file.parent
    images = with_endings([image_id(name, base) for name in named["path"]], base, path)
    places = [os.path.join(base, name) for name in images]
    check_present({"id": images, "path": places}, path, base)
    facts: dict[str, list[Any]] = {
        "label": labels_of(cells, label_column, label_columns, label_separator, path),
        "split": given_splits(cells, split_column, path),
        **{name: group_of(cells, name, path) for name in group_columns},
    }
    members = sort_frames(named["sequence"], named["order"], path)
    columns: dict[str, list[Any]] = {"id": list(members), "path": list(members)}
    columns |= {name: [single_value(values, rows, name, sequence, path) for sequence, rows in members.items()]
                for name, values in facts.items()}  # fmt: skip
    columns["split"] = rename_val_split(columns["split"], val_means)
    kept = {
        sequence: tuple(places[rows[number]] for number in evenly_spaced(len(rows), frames))
        for sequence, rows in members.items()
    }
    several = any(isinstance(label, tuple) for label in columns["label"])
    store = SequenceStore(FileStore(), kept, frames)
    return build_table(columns, store, groups=group_columns, multilabel=several, labels=label_columns)


def sort_frames(names: Sequence[str], order: Sequence[str], file: str) -> dict[str, list[int]]:
    """Return the rows of each sequence in their order.

    Raises:
        DataError: Two frames of a sequence have the same place.
    """
    numbers = all(NUMBER.fullmatch(place) for place in order)
    keys: list[Any] = [float(place) if numbers else natural_key(place) for place in order]
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        members.setdefault(name, []).append(row)
    for name, rows in members.items():
        rows.sort(key=lambda row: keys[row])
        twice = [second for first, second in zip(rows, rows[1:], strict=False) if keys[first] == keys[second]]
        if twice:
            raise DataError(
                f"{file} gives two frames of the sequence '{name}' the same place ({order[twice[0]]}). Number the "
                "frames of a sequence, or name another column with data.order_column."
            )
    return members


def single_value(values: Sequence[Any], rows: Sequence[int], column: str, sequence: str, file: str) -> Any:
    """Return the one value that all rows of a sequence have in a column.

    Raises:
        DataError: They have several.
    """
    found = list(dict.fromkeys(values[row] for row in rows))
    if len(found) > 1:
        shown = " and ".join(str(value) for value in found[:2])
        raise DataError(
            f"{file} contradicts itself about the sequence '{sequence}': its frames have another {column} each "
            f"({shown}). Give all frames of a sequence the same, or other sequences other names."
        )
    return found[0]
