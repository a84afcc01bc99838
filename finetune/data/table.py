"""The table of images: one row per image with its id, label, split and groups, and the store that reads its pixels.

It decides what a data set is for all later parts; where rows come from, how they are split and how pixels become
tensors is left to its neighbours.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from finetune.errors import DataError
from finetune.runs import replacing

Task = Literal["multiclass", "multilabel"]
SPLITS = ("train", "val", "test")
COLUMNS = ("id", "path", "label", "split", "digest")


class ImageStore(Protocol):
    """Reads an image's pixels; it can be pickled, since worker processes use it."""

    def read(self, path: str, channels: int) -> Image.Image:
        """Return the image with 1, 3 or 4 channels, upright, or raise DataError naming it."""

    def content(self, path: str) -> bytes:
        """Return the bytes that the image's digest is made of."""


@dataclass(frozen=True)
class ImageTable:
    """Labelled images.

    Attributes:
        frame: One row per image: id, path, label (a name, or a tuple of names where an image has several), split
            (train, val, test or None), digest (of the content, None before it was checked), and the group columns.
        labels: All label names of the whole table; a label's number is its position.
        task: multiclass (one label per image) or multilabel (any number).
        store: Reads the pixels.
        groups: Names of the group columns.
        skipped: Ids of images that were left out because they cannot be read.
    """

    frame: pd.DataFrame
    labels: tuple[str, ...]
    task: Task
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
        return np.flatnonzero((self.frame["split"] == split).to_numpy()).astype(np.int64)

    def targets(self) -> npt.NDArray[Any]:
        """Return class numbers (N,) int64, or multi-hot vectors (N, K) float32."""
        number = {label: index for index, label in enumerate(self.labels)}
        if self.task == "multiclass":
            return self.frame["label"].map(number).to_numpy(dtype=np.int64)
        targets = np.zeros((len(self), len(self.labels)), dtype=np.float32)
        for row, names in enumerate(self.frame["label"]):
            targets[row, [number[name] for name in names]] = 1.0
        return targets

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images of each label in each split."""
        counts: dict[str, dict[str, int]] = {}
        for split, label in zip(self.frame["split"], self.frame["label"], strict=True):
            found = counts.setdefault(str(split), dict.fromkeys(self.labels, 0))
            for name in (label,) if self.task == "multiclass" else label:
                found[name] += 1
        return counts

    def sizes(self) -> dict[str, int]:
        """Return the number of images in each split."""
        found = Counter(self.frame["split"])
        return {split: found.get(split, 0) for split in SPLITS}

    def fingerprint(self) -> str:
        """Return a digest of ids, labels, splits and contents, the same whatever the order of rows."""
        columns = ["id", "label", "split", "digest"]
        lines = sorted(json.dumps([str(value) for value in row]) for row in self.frame[columns].itertuples(index=False))
        return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()

    def save(self, path: Path) -> None:
        """Write all but the pixels to a Parquet file."""
        table = pa.Table.from_pandas(self.frame, preserve_index=False)
        meta = {"labels": self.labels, "task": self.task, "groups": self.groups, "skipped": self.skipped}
        with replacing(path) as temporary:
            pq.write_table(table.replace_schema_metadata({"finetune": json.dumps(meta)}), temporary)

    def with_splits_of(self, path: Path) -> "ImageTable":
        """Return this source's images exactly as a run has stored them: same rows, splits and vocabulary.

        Args:
            path: The stored table.

        Raises:
            DataError: Images of the stored table are gone, have another label, or another content.
        """
        saved, meta = read_saved(path)
        known = self.frame.set_index("id")
        gone = [name for name in saved["id"] if name not in known.index]
        if gone:
            raise DataError(
                f"{len(gone):,} of the run's {len(saved):,} images are gone (first: {gone[0]}). "
                "Bring them back, or name where they are now (data.root=...)."
            )
        paths = known.loc[saved["id"], "path"].tolist()
        saved = saved.assign(path=paths)
        table = replace(
            self,
            frame=saved,
            labels=tuple(meta["labels"]),
            groups=tuple(meta["groups"]),
            skipped=tuple(meta["skipped"]),
        )
        table.check_contents()
        return table

    def check_contents(self) -> None:
        """Check that the images are those whose digests the table holds.

        Raises:
            DataError: Some have changed.
        """
        pairs = zip(self.frame["id"], self.frame["path"], self.frame["digest"], strict=True)
        changed = [name for name, path, found in pairs if isinstance(found, str) and digest(self.store.content(path)) != found]
        if changed:
            raise DataError(
                f"{len(changed):,} of the run's {len(self):,} images have changed since (first: {changed[0]}). "
                "Scores on them cannot be compared: restore them, or start a new run."
            )


def read_saved(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the rows and the vocabulary of a stored table."""
    table = pq.read_table(path)
    meta = json.loads(table.schema.metadata[b"finetune"])
    frame = table.to_pandas()
    if meta["task"] == "multilabel":
        frame["label"] = [tuple(names) for names in frame["label"]]
    return frame.astype({"split": object, "digest": object}), meta


def digest(content: bytes) -> str:
    """Return the digest of an image's bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
