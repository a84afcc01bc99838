"""The table of images: one row per image with its id, label, split and groups, and the store that reads its pixels."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from finetune.data.decoding import DecodedImage
from finetune.data.value_range import ValueRange
from finetune.errors import DataError
from finetune.runs.run import replacing
from finetune.runtime.device import cores

log = logging.getLogger(__name__)

LabelTask = Literal["multiclass", "multilabel"]
SPLITS = ("train", "val", "test")
_COLUMNS = ("id", "path", "label", "split", "digest")


class ImageStore(Protocol):
    """Reads an image's pixels; it can be pickled, since worker processes use it.

    One that reads files of more than 8 bits is a dataclass with a field `value_range`: what is black and white there.
    """

    def open(self, path: str, channels: int) -> DecodedImage:
        """Return the image opened but not decoded where that can wait, or raise DataError naming it."""

    def read(self, path: str, channels: int) -> Image.Image:
        """Return the image with 1, 3 or 4 channels, upright, or raise DataError naming it."""

    def content(self, path: str) -> bytes:
        """Return the bytes that the image's digest is made of, or raise OSError or DataError."""


@dataclass(frozen=True)
class ImageTable:
    """Labelled images.

    Attributes:
        frame: One row per image: id, path, label (a name, or a tuple of names where an image has several), split
            (train, val, test or None), digest (of the content, None before it was checked), and the group columns.
        labels: All label names of the whole table, sorted; a label's number is its position.
        task: multiclass (one label per image) or multilabel (any number).
        store: Reads the pixels.
        groups: Names of the group columns.
        skipped: Ids of images that were left out because they cannot be read.
    """

    frame: pd.DataFrame
    labels: tuple[str, ...]
    task: LabelTask
    store: ImageStore
    groups: tuple[str, ...] = ()
    skipped: tuple[str, ...] = field(default=())

    @property
    def num_classes(self) -> int:
        """The number of labels."""
        return len(self.labels)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.frame)

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Return the row numbers of a split."""
        return np.flatnonzero((self.frame["split"] == split).to_numpy(dtype=bool)).astype(np.int64)

    def names(self) -> list[tuple[str, ...]]:
        """Return the labels of each image, as a tuple also where it has just one."""
        labels = self.frame["label"].tolist()
        return [(label,) for label in labels] if self.task == "multiclass" else [tuple(label) for label in labels]

    def targets(self) -> npt.NDArray[Any]:
        """Return class numbers (N,) int64, or multi-hot vectors (N, K) float32."""
        number = {label: index for index, label in enumerate(self.labels)}
        if self.task == "multiclass":
            return np.array([number[label] for label in self.frame["label"].tolist()], dtype=np.int64)
        targets = np.zeros((len(self), len(self.labels)), dtype=np.float32)
        for row, names in enumerate(self.names()):
            targets[row, [number[name] for name in names]] = 1.0
        return targets

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images of each label in each split."""
        counts: dict[str, dict[str, int]] = {split: dict.fromkeys(self.labels, 0) for split in SPLITS}
        for split, names in zip(self.frame["split"].tolist(), self.names(), strict=True):
            found = counts.setdefault(str(split), dict.fromkeys(self.labels, 0))
            for name in names:
                found[name] += 1
        return counts

    def sizes(self) -> dict[str, int]:
        """Return the number of images in each split."""
        found = Counter(self.frame["split"].tolist())
        return {split: found.get(split, 0) for split in SPLITS}

    def fingerprint(self) -> str:
        """Return a digest of ids, labels, splits and contents, the same whatever the order of rows."""
        columns = (_plain(self.frame[name]) for name in ("id", "label", "split", "digest"))
        lines = sorted(json.dumps(row) for row in zip(*columns, strict=True))
        return content_digest("\n".join(lines).encode())

    def save(self, path: Path) -> None:
        """Write all but the pixels to a Parquet file."""
        types = dict.fromkeys(_COLUMNS, pa.string())
        if self.task == "multilabel":
            types["label"] = pa.list_(pa.string())
        columns = {name: pa.array(_plain(self.frame[name]), types.get(name)) for name in (*_COLUMNS, *self.groups)}
        meta: dict[str, Any] = {
            "labels": self.labels,
            "task": self.task,
            "groups": self.groups,
            "skipped": self.skipped,
        }
        meta["value_range"] = value_range_of(self.store)
        with replacing(path) as temporary:
            pq.write_table(pa.table(columns).replace_schema_metadata({"finetune": json.dumps(meta)}), temporary)

    def with_splits_of(self, path: Path) -> "ImageTable":
        """Return this source's images exactly as a run has stored them: same rows, splits and vocabulary.

        Args:
            path: The stored table.

        Raises:
            DataError: Images of the stored table are gone, have another label, or another content.
        """
        saved, meta = load_saved_table(path)
        row_of = {name: row for row, name in enumerate(self.frame["id"].tolist())}
        ids = saved["id"].tolist()
        gone = [name for name in ids if name not in row_of]
        if gone:
            raise DataError(
                f"{len(gone):,} of the run's {len(ids):,} images are gone (first: {gone[0]}). "
                "Bring them back, or name where they are now (data.root=...)."
            )
        rows = [row_of[name] for name in ids]
        now = as_multilabel(self) if meta["task"] == "multilabel" else self
        _check_labels(saved, now.frame["label"].iloc[rows].tolist())
        added = set(row_of).difference(ids, meta["skipped"])
        if added:
            log.warning("%d images are new since the run began and are left out (first: %s).", len(added), min(added))
        paths = self.frame["path"].iloc[rows].tolist()
        table = replace(
            self,
            frame=saved.assign(path=object_column(paths)),
            labels=tuple(meta["labels"]),
            task=meta["task"],
            groups=tuple(meta["groups"]),
            skipped=tuple(meta["skipped"]),
        )
        table = with_value_range(table, meta.get("value_range"))
        try:
            table.check_contents()
        except OSError as error:
            raise DataError(f"An image of the run cannot be read: {error}. Bring it back to resume the run.") from error
        return table

    def check_contents(self) -> None:
        """Check that the images are those whose digests the table holds; each file is read once, by all cores.

        Raises:
            DataError: Some have changed.
            OSError: One cannot be read.
        """
        known = [row for row, found in enumerate(self.frame["digest"].tolist()) if isinstance(found, str)]
        frame = self.frame.iloc[known]
        with ThreadPoolExecutor(cores()) as pool:
            now = pool.map(lambda path: content_digest(self.store.content(path)), frame["path"].tolist())
            triples = zip(frame["id"].tolist(), frame["digest"].tolist(), now, strict=True)
            changed = [name for name, before, found in triples if before != found]
        if changed:
            raise DataError(
                f"{len(changed):,} of the run's {len(self):,} images have changed since (first: {changed[0]}). "
                "Scores on them cannot be compared: restore them, or start a new run."
            )


def value_range_of(store: ImageStore) -> ValueRange | None:
    """Return what values of more than 8 bits are black and white to a store; None where it takes a guess."""
    found: ValueRange | None = getattr(store, "value_range", None)
    return found


def ranged_store(store: ImageStore, value_range: Sequence[float] | None) -> ImageStore:
    """Return a store that reads values of more than 8 bits by a range, or guesses it of each image where it is None."""
    images: ImageStore | None = getattr(store, "images", None)
    if is_dataclass(store) and any(entry.name == "value_range" for entry in fields(store)):
        return replace(store, value_range=None if value_range is None else tuple(value_range))
    if is_dataclass(store) and hasattr(images, "open"):  # of sequences, whose frames another store reads
        return replace(store, images=ranged_store(images, value_range))
    return store


def with_value_range(table: ImageTable, value_range: Sequence[float] | None) -> ImageTable:
    """Return a table whose store reads values of more than 8 bits by a range."""
    return replace(table, store=ranged_store(table.store, value_range))


def as_multilabel(table: ImageTable) -> ImageTable:
    """Return a table of one label per image as one of several, of which each image has one."""
    if table.task == "multilabel":
        return table
    labels = object_column([(label,) for label in table.frame["label"]])
    return replace(table, frame=table.frame.assign(label=labels), task="multilabel")


def _check_labels(saved: pd.DataFrame, now: Sequence[Any]) -> None:
    """Check that images have the labels that a run has stored.

    Raises:
        DataError: Some have others.
    """
    pairs = zip(saved["id"].tolist(), saved["label"].tolist(), now, strict=True)
    changed = [(name, before, label) for name, before, label in pairs if before != label]
    if changed:
        name, before, label = changed[0]
        raise DataError(
            f"{len(changed):,} of the run's {len(saved):,} images have another label now (first: {name}, {before} then "
            f"and {label} now). Restore the labels, or start a new run."
        )


def load_saved_table(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the rows and the vocabulary of a stored table.

    Raises:
        DataError: The file is none.
    """
    try:
        table = pq.read_table(path)
        meta = json.loads((table.schema.metadata or {})[b"finetune"])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} is not the stored table of a run ({type(error).__name__}). Start a new run."
        ) from error
    columns = table.to_pydict()
    if meta["task"] == "multilabel":
        columns["label"] = [tuple(names) for names in columns["label"]]
    return build_frame(columns), meta


def build_frame(columns: Mapping[str, Collection[Any]]) -> pd.DataFrame:
    """Return columns as a frame of plain Python objects, with the columns that every table has."""
    size = len(columns["id"])
    absent = {name: [None] * size for name in _COLUMNS if name not in columns}
    return pd.DataFrame({name: object_column(values) for name, values in {**columns, **absent}.items()})


def object_column(values: Collection[Any]) -> "pd.Series[Any]":
    """Return a column of plain objects, in which None stays None and a tuple stays a tuple."""
    return pd.Series(np.fromiter(values, dtype=object, count=len(values)), dtype=object)


def _plain(column: "pd.Series[Any]") -> list[Any]:
    """Return the values of a column, with None wherever a frame has its own sign for nothing."""
    return [None if value is None or value != value else value for value in column.tolist()]


def content_digest(content: bytes) -> str:
    """Return the digest of an image's bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
