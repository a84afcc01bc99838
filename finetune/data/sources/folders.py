"""Class folders, with or without folders of splits above them."""

import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune.data.image_stores import FileStore, image_suffixes
from finetune.data.sources.file_kinds import found_instead, hidden_folders, is_hidden, places_below
from finetune.data.sources.table_builder import SPLIT_NAMES, build_table, existing_path, rename_val_split, split_named
from finetune.data.table import ImageTable
from finetune.errors import DataError, nearest

log = logging.getLogger(__name__)


class ClassFolder(NamedTuple):
    """A class folder and the files below it."""

    path: Path
    split: str | None
    images: list[Path]
    others: list[Path]


def folder(root: str, val_means: str = "auto") -> ImageTable:
    """Return the images of class folders, `root/<class>/...` or `root/<split>/<class>/...`.

    Folders within a class folder belong to the class; hidden files and folders, and those of a system, to nothing.

    Args:
        root: The folder.
        val_means: What a folder called val (validation, valid) is when there is no test folder: val, test, or auto,
            which takes it as the test set, so that the images held out by the author decide nothing in training.

    Raises:
        DataError: There is no such folder, or it holds no class folders with images.
        ConfigError: `val_means` is not known.
    """
    top = existing_path(root, "The folder", "data.root")
    if not top.is_dir():
        raise DataError(
            f"data.root={root} is a file. Name the folder above the class folders, or use data=csv data.path={root}."
        )
    splits = split_folders(top)
    above: dict[Path, str | None] = {**splits} or {top: None}
    places = [(entry, split) for place, split in above.items() for entry in subfolders(place)]
    classes = [ClassFolder(entry, split, *files_below(entry)) for entry, split in places]
    rows = [(file, found.path.name, found.split) for found in classes for file in found.images]
    if not rows:
        found = "" if direct_images(top) else f" {found_instead(top)}"
        raise DataError(
            f"{root} holds no images in class folders. Expected {root}/<class>/<image> or "
            f"{root}/train/<class>/<image>.{found}"
        )
    warn_left_out(top, classes, [image for place in (top, *splits) for image in direct_images(place)])
    if not splits:
        warn_of_depth([found for found in classes if found.images])
    columns: dict[str, Collection[Any]] = {
        "id": [file.relative_to(top).as_posix() for file, _, _ in rows],
        "path": [str(file) for file, _, _ in rows],
        "label": [label for _, label, _ in rows],
        "split": rename_val_split([split for _, _, split in rows], val_means),
    }
    return build_table(columns, FileStore())


def refuse(error: OSError) -> None:
    """Say that a folder may not be looked into, rather than take it as empty.

    Raises:
        DataError: Always.
    """
    raise DataError(f"The folder {error.filename} cannot be listed ({error.strerror}). Make it readable.") from error


def _listed(above: Path) -> list[Path]:
    """Return what is in a folder and not hidden, by name."""
    try:
        return sorted(entry for entry in above.iterdir() if not is_hidden(entry.name))
    except OSError as error:
        refuse(error)
        raise


def subfolders(above: Path) -> list[Path]:
    """Return the folders in a folder, without hidden ones."""
    return [entry for entry in _listed(above) if entry.is_dir()]


def direct_images(above: Path) -> list[Path]:
    """Return the images that lie in a folder itself."""
    return [entry for entry in _listed(above) if entry.suffix.lower() in image_suffixes() and not entry.is_dir()]


def files_below(above: Path) -> tuple[list[Path], list[Path]]:
    """Return the images below a folder and the files that are none; a folder that links lead to twice counts once."""
    images: list[Path] = []
    others: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(above, followlinks=True, onerror=refuse):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not is_hidden(name, within_class=True))
        files = [] if real in seen else sorted(name for name in names if not is_hidden(name))
        seen.add(real)
        for name in files:
            (images if os.path.splitext(name)[1].lower() in image_suffixes() else others).append(Path(place, name))
    return images, others


def split_folders(top: Path) -> dict[Path, str]:
    """Return the folders of splits; none where the folder holds classes, one of which may well be called train.

    They may lie one level deeper, in the only folder of `top`, or each in one that is called as it is.

    Raises:
        DataError: There are folders of splits and of something else, or the splits hold no class folders.
    """
    entries = subfolders(top)
    splits = {entry: split for entry in entries if (split := split_named(entry.name))}
    if not splits and len(entries) == 1 and not direct_images(entries[0]):
        inner = subfolders(entries[0])
        splits = {entry: split for entry in inner if (split := split_named(entry.name))}
        entries = inner if len(set(splits.values())) > 1 else []
        splits = splits if entries else {}
    others = [entry for entry in entries if splits and entry not in splits and files_below(entry)[0]]
    if others and all(direct_images(entry) or not subfolders(entry) for entry in splits):
        return {}
    if others:
        raise DataError(
            f"{top} holds folders of splits ({', '.join(entry.name for entry in splits)}) and others "
            f"({', '.join(entry.name for entry in others[:3])}). Move the others away, or name a folder with only one "
            f"kind.{nearest(others[0].name, SPLIT_NAMES)}"
        )
    splits = {inner_folder(entry): split for entry, split in splits.items()}
    if splits and not any(subfolders(entry) for entry in splits):
        raise DataError(
            f"{top} holds {', '.join(entry.name for entry in splits)} without class folders in them. "
            f"Expected {next(iter(splits))}/<class>/<image>, or a table (data=csv)."
        )
    return splits


def inner_folder(split: Path) -> Path:
    """Return the folder in a folder of a split that holds its classes: itself, or the only one, if called likewise."""
    inner = subfolders(split)
    alike = len(inner) == 1 and split_named(inner[0].name) == split_named(split.name)
    return inner[0] if alike and subfolders(inner[0]) and not direct_images(split) else split


def warn_of_depth(classes: Sequence[ClassFolder]) -> None:
    """Warn where the folders are likely those above the classes."""
    names = [found.path.name for found in classes]
    below = [{entry.name for entry in subfolders(found.path)} for found in classes]
    shared = sorted(set.intersection(*below))
    if len(names) > 1 and shared and not any(direct_images(found.path) for found in classes):
        log.warning(
            "The classes %s hold the same folders (%s). If these are the classes, call those above train and test.",
            ", ".join(names[:3]),
            ", ".join(shared[:3]),
        )


def warn_left_out(top: Path, classes: Sequence[ClassFolder], stray: Sequence[Path]) -> None:
    """Warn of class folders without an image, of files that are no images, and of images in no class folder."""
    full = {found.path.name for found in classes if found.images}
    empty = sorted({found.path.name for found in classes} - full)
    if empty:
        log.warning("Folders without any image are no class: %s.", ", ".join(empty))
    hidden = list(hidden_folders(top, image_suffixes()))
    if hidden:
        log.info("Folders of a system or program, and hidden ones, are left out: %s.", places_below(hidden, top))
    others = [file for found in classes for file in found.others]
    for what, files in (("are no images", others), ("stand in no class folder", stray)):
        if files:
            first = min(files).relative_to(top).as_posix()
            log.warning("%s files of %s %s and are left out (first: %s).", f"{len(files):,}", top, what, first)
