"""Where images and labels come from: class folders, a table, the bundled digits.

It decides which files belong to the data set, their ids, labels and given splits; missing splits are made and files
are checked elsewhere.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image

from finetune.data.decoding import ArrayStore, FileStore, pd_object
from finetune.data.table import ImageTable
from finetune.errors import ConfigError, DataError, nearest

log = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def image_suffixes() -> set[str]:
    """Return the file name endings that PIL can read, in lower case."""
    Image.init()
    return {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN and name != "PDF"}


def existing(path: str | Path, what: str, key: str) -> Path:
    """Return a path that exists.

    Raises:
        DataError: It does not; the message names the nearest neighbour.
    """
    found = Path(path).expanduser()
    if found.exists():
        return found.absolute()
    parent = found.absolute().parent
    while not parent.exists():
        parent = parent.parent
    neighbours = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    part = found.absolute().relative_to(parent).parts[0]
    raise DataError(f"{what} {path} does not exist. Set {key} to one that does.{nearest(part, neighbours)}")


def folder(root: str, val_means: Literal["auto", "val", "test"] = "auto") -> ImageTable:
    """Return the images of class folders, `root/<class>/...` or `root/<split>/<class>/...`.

    Classes are in the order of their sorted names; folders within a class folder belong to the class.

    Args:
        root: The folder.
        val_means: What a folder called val (validation, valid) is when there is no test folder: val, test, or auto,
            which takes it as the test set, so that the images held out by the author decide nothing in training.

    Raises:
        DataError: There is no such folder, or it holds no class folders with images.
    """
    top = existing(root, "The folder", "data.root")
    if not top.is_dir():
        raise DataError(f"data.root={root} is a file. Name the folder above the class folders, or use data=csv data.path={root}.")
    entries = sorted(entry for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    splits = {entry: SPLIT_NAMES[entry.name.lower()] for entry in entries if entry.name.lower() in SPLIT_NAMES}
    if splits and "train" in splits.values():
        others = [entry.name for entry in entries if entry not in splits]
        if others:
            raise DataError(
                f"{root} holds split folders ({', '.join(entry.name for entry in splits)}) and others "
                f"({', '.join(others[:3])}). Move the others away, or name a folder with only one kind."
            )
        classes = [(inner, splits[entry]) for entry in splits for inner in class_folders(entry)]
    else:
        classes = [(entry, None) for entry in entries]
    rows = [row for entry, split in classes for row in class_rows(top, entry, split)]
    if not rows:
        raise DataError(f"{root} holds no images in class folders. Expected {root}/<class>/<image> or {root}/train/<class>/<image>.")
    warn_empty(classes, rows)
    frame = frame_of(rows)
    return finish(frame.assign(split=pd_object(meaning_of_val(frame["split"].tolist(), val_means))), FileStore())


def class_folders(split: Path) -> list[Path]:
    """Return the class folders of a split folder."""
    return sorted(entry for entry in split.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def class_rows(top: Path, entry: Path, split: str | None) -> list[dict[str, Any]]:
    """Return a row for each image below a class folder."""
    suffixes = image_suffixes()
    files = sorted(file for file in entry.rglob("*") if file.is_file() and not file.name.startswith("."))
    images = [file for file in files if file.suffix.lower() in suffixes]
    if len(images) < len(files):
        other = next(file for file in files if file.suffix.lower() not in suffixes)
        log.warning("%d files of %s are not images and are left out (first: %s).", len(files) - len(images), entry, other.name)
    return [{"id": file.relative_to(top).as_posix(), "path": str(file), "label": entry.name, "split": split} for file in images]


def warn_empty(classes: Sequence[tuple[Path, str | None]], rows: Sequence[dict[str, Any]]) -> None:
    """Warn of class folders without any image: they are no class of this data set."""
    seen = {row["label"] for row in rows}
    empty = sorted({entry.name for entry, _ in classes} - seen)
    if empty:
        log.warning("Folders without any image are no class: %s.", ", ".join(empty))


def meaning_of_val(splits: list[str | None], val_means: str) -> list[str | None]:
    """Return the splits with val renamed to test where there is no test set and `val_means` says so."""
    if val_means not in ("auto", "val", "test"):
        raise ConfigError(f"data.val_means={val_means} is not known. Use auto, val or test.{nearest(val_means, ('auto', 'val', 'test'))}")
    if "val" not in splits or "test" in splits or val_means == "val":
        return splits
    if val_means == "auto":
        log.info(
            "There is a val split and no test: it is used as the test set, and validation images are taken from train "
            "(data.val_means=val keeps it as validation)."
        )
    return ["test" if split == "val" else split for split in splits]


def csv(
    path: str,
    root: str | None = None,
    path_column: str = "path",
    label_column: str = "label",
    label_columns: Sequence[str] = (),
    label_separator: str | None = None,
    split_column: str = "split",
    group_columns: Sequence[str] = (),
    val_means: Literal["auto", "val", "test"] = "val",
) -> ImageTable:
    """Return the images of a CSV or Parquet table.

    Args:
        path: The table.
        root: What relative image paths are relative to; None for the table's folder.
        path_column: Column of image paths.
        label_column: Column of labels.
        label_columns: Columns of 0 and 1, one per label, in place of `label_column`: several labels per image.
        label_separator: Separates several labels in `label_column`; None for one label per image.
        split_column: Column of splits; it may be missing, and its cells may be empty.
        group_columns: Columns that say which group an image belongs to.
        val_means: As for `folder`.

    Raises:
        DataError: The table cannot be read, lacks a column or a value, or names images twice or that are not there.
    """
    file = existing(path, "The table", "data.path")
    table = read_table(file)
    needed = [path_column, *(label_columns or [label_column]), *group_columns]
    needed += [split_column] if split_column != "split" else []
    for column in needed:
        if column not in table.columns:
            raise DataError(f"{path} has no column '{column}' (it has: {', '.join(map(str, table.columns))}).{nearest(column, map(str, table.columns))}")
    table = table.drop_duplicates().reset_index(drop=True)
    ids = [str(value) for value in table[path_column]]
    base = existing(root, "The folder", "data.root") if root else file.parent
    labels = read_labels(table, label_column, label_columns, label_separator, path)
    splits = [read_split(value, path) for value in table[split_column]] if split_column in table.columns else [None] * len(table)
    check_unique(ids, path)
    paths = [str(base / name) for name in ids]
    missing = [name for name, place in zip(ids, paths, strict=True) if not Path(place).is_file()]
    if missing:
        raise DataError(f"{len(missing):,} of {len(ids):,} images of {path} do not exist below {base} (first: {missing[0]}). Set data.root to the folder that the paths start from.")
    frame = frame_of([{"id": i, "path": p, "label": y, "split": s} for i, p, y, s in zip(ids, paths, labels, splits, strict=True)])
    groups = {column: pd_object([None if value == "" else value for value in table[column]]) for column in group_columns}
    multi = bool(label_columns) or label_separator is not None
    names = list(label_columns) if label_columns else None
    frame = frame.assign(split=pd_object(meaning_of_val(frame["split"].tolist(), val_means)), **groups)
    return finish(frame, FileStore(), groups=tuple(group_columns), multi=multi, names=names)


def read_table(file: Path) -> pd.DataFrame:
    """Return a table with all cells as text, empty where there is nothing."""
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            table = pd.read_parquet(file)
            return table.map(lambda value: "" if value is None or value != value else str(value))
        separator = "\t" if file.suffix.lower() == ".tsv" else ","
        return pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise DataError(f"{file} cannot be read as a table: {str(error).splitlines()[0]} Expected CSV (UTF-8) or Parquet.") from error


def read_labels(table: pd.DataFrame, column: str, columns: Sequence[str], separator: str | None, path: str) -> list[Any]:
    """Return one label per row, or a tuple of labels where an image may have several."""
    if columns:
        values = table[list(columns)].apply(lambda cells: cells.str.strip().str.lower())
        known = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": False}
        odd = sorted(set(values.to_numpy().ravel()) - set(known))
        if odd:
            raise DataError(f"The label columns of {path} hold '{odd[0]}'; expected 0 or 1.")
        return [tuple(name for name, cell in zip(columns, row, strict=True) if known[cell]) for row in values.to_numpy()]
    cells = table[column].str.strip()
    if separator is not None:
        return [tuple(sorted({part.strip() for part in cell.split(separator)} - {""})) for cell in cells]
    empty = np.flatnonzero((cells == "").to_numpy())
    if len(empty):
        raise DataError(f"{len(empty):,} of {len(table):,} rows of {path} have no {column} (first: row {empty[0] + 2}). Fill them in, or remove the rows.")
    return cells.tolist()


def read_split(cell: str, path: str) -> str | None:
    """Return the split that a cell means, None where it is empty."""
    word = cell.strip().lower()
    if word and word not in SPLIT_NAMES:
        raise DataError(f"{path} has a split '{cell}'; expected train, val or test.{nearest(word, SPLIT_NAMES)}")
    return SPLIT_NAMES[word] if word else None


def check_unique(ids: Sequence[str], path: str) -> None:
    """Check that no image is named twice."""
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(
            f"{len(twice):,} images stand in {path} more than once with different labels, splits or groups "
            f"(first: {twice[0]}). Keep one row of each."
        )


def digits() -> ImageTable:
    """Return scikit-learn's 1,797 handwritten digits, grey, 8 x 8 pixels (UCI, Alpaydin & Kaynak 1998)."""
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images = np.rint(bundled.images * (255 / 16)).astype(np.uint8)
    ids = [f"digits/{number:04d}" for number in range(len(images))]
    frame = frame_of([{"id": i, "path": i, "label": str(y), "split": None} for i, y in zip(ids, bundled.target, strict=True)])
    return finish(frame, ArrayStore(images))


def frame_of(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a frame whose columns hold plain Python objects."""
    columns = ("id", "path", "label", "split")
    values = {name: np.empty(len(rows), dtype=object) for name in columns}
    for number, row in enumerate(rows):
        for name in columns:
            values[name][number] = row[name]
    frame = pd.DataFrame(values)
    frame["digest"] = pd_object([None] * len(rows))
    return frame


def finish(
    frame: pd.DataFrame, store: Any, *, groups: tuple[str, ...] = (), multi: bool = False, names: list[str] | None = None
) -> ImageTable:
    """Return the table with the vocabulary of all its rows, sorted by name."""
    present = {name for names_ in frame["label"] for name in names_} if multi else set(frame["label"])
    labels = tuple(names or sorted(present))
    if len(labels) < (1 if multi else 2):
        raise DataError(f"All {len(frame):,} images have the same label ({', '.join(labels)}); a classifier needs two or more.")
    return ImageTable(frame, labels, "multilabel" if multi else "multiclass", store, groups)
