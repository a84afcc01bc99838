"""What all sources share: paths that exist, the meaning of a lone val split, and the vocabulary of the whole table."""

import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.data.table import ImageStore, ImageTable, build_frame
from finetune.errors import ConfigError, DataError, nearest

log = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# words beside that of a split in the name of its folder, such as seg_train, training_set or test-images
_FILLERS = ("set", "data", "dataset", "seg", "images", "imgs", "img", "image", "split", "folder", "files", "photos")
VAL_MEANINGS = ("auto", "val", "test")


def split_named(folder: str) -> str | None:
    """Return the split that the name of a folder means, None where it means none."""
    words = [word for word in re.split(r"[^a-z]+", folder.lower()) if word]
    parts = [word.removesuffix("set") if word.removesuffix("set") in SPLIT_NAMES else word for word in words]
    meant = [part for part in parts if part not in _FILLERS]
    return SPLIT_NAMES.get(meant[0]) if len(meant) == 1 else None


def existing_path(path: str | Path, what: str, key: str) -> Path:
    """Return a path that exists, made absolute.

    Raises:
        DataError: It does not; the message names the nearest neighbour.
    """
    found = Path(os.path.abspath(Path(path).expanduser()))
    if os.path.exists(found):
        return found
    parent = next(above for above in found.parents if os.path.exists(above))
    part = found.relative_to(parent).parts[0]
    neighbours = os.listdir(parent) if parent.is_dir() and os.access(parent, os.R_OK) else []
    raise DataError(f"{what} {path} does not exist. Set {key} to one that does.{nearest(part, neighbours)}")


def rename_val_split(splits: list[str | None], val_means: str) -> list[str | None]:
    """Return the splits with val renamed to test where there is no test set and `val_means` says so.

    Args:
        splits: The given splits.
        val_means: val, test, or auto, which means test.

    Raises:
        ConfigError: `val_means` is something else.
    """
    if val_means not in VAL_MEANINGS:
        hint = nearest(val_means, VAL_MEANINGS)
        raise ConfigError(f"data.val_means={val_means} is not known. Use one of {', '.join(VAL_MEANINGS)}.{hint}")
    if "val" not in splits or "test" in splits or val_means == "val":
        return splits
    if val_means == "auto":
        log.info(
            "There is a val split and no test: it is used as the test set, and validation images are taken from train "
            "(data.val_means=val keeps it as validation)."
        )
    return ["test" if split == "val" else split for split in splits]


def build_table(
    columns: Mapping[str, Collection[Any]],
    store: ImageStore,
    *,
    groups: Sequence[str] = (),
    multilabel: bool = False,
    labels: Sequence[str] = (),
) -> ImageTable:
    """Return the table with the vocabulary of all its rows, in natural order.

    Args:
        columns: The columns id, path and label, and where there are any split and groups, a value per image.
        store: Reads the pixels.
        groups: Names of the group columns.
        multilabel: Whether a label is a tuple of names.
        labels: All names, where they are known apart from the rows.

    Raises:
        DataError: A file name is no text, or there is no label.
    """
    check_text(columns["id"])
    present = {name for label in columns["label"] for name in (label if multilabel else (label,))}
    names = tuple(sorted(set(labels) or present, key=lambda name: (natural_key(name), name)))
    if not names:
        raise DataError(f"None of the {len(columns['id']):,} images has a label. Check the label column and separator.")
    warn_of_capitals(names)
    return ImageTable(build_frame(columns), names, "multilabel" if multilabel else "multiclass", store, tuple(groups))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return what to sort names by so that 2 comes before 10."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d{1,4000})", name) if part
    ]


def require_classes(table: ImageTable) -> None:
    """Check that images have the labels that a classifier needs.

    Raises:
        DataError: All have the same.
    """
    if table.num_classes > 1 or table.task == "multilabel":
        return
    label = table.labels[0]
    below = [Path(name).parts[1] for name in table.frame["id"] if len(Path(name).parts) > 2]
    path = Path(str(table.frame["path"].iloc[0]))
    place = next((above for above in path.parents if above.name == label), None)
    hint = f" If the classes are in it, set data.root={place}." if below and place is not None else ""
    raise DataError(
        f"All {len(table):,} images have the same label ({label}); a classifier needs two or more classes.{hint}"
    )


def check_text(ids: Collection[str]) -> None:
    """Check that the names of files can be written to a table.

    Raises:
        DataError: Some are not in the encoding of file names.
    """
    odd = [name for name in ids if not name.isprintable() and name.encode(errors="ignore").decode() != name]
    if odd:
        first = odd[0].encode(errors="backslashreplace").decode()
        raise DataError(f"The names of {len(odd):,} files are not UTF-8 (first: {first}). Rename them.")


def warn_of_capitals(names: Sequence[str]) -> None:
    """Warn of labels that are different classes only by their capitals."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            log.warning("The labels '%s' and '%s' differ only in capitals and are two classes.", other, name)
