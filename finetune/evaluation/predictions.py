"""Predictions: what a network said about a set of images, in memory and as a Parquet file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from finetune.data.table import ImageTable
from finetune.errors import DataError, RunError
from finetune.runs.run import replacing

PredictionTask = Literal["multiclass", "multilabel"]
THRESHOLD = 0.5
_VERSION = "1"
SEPARATOR = "|"
_COLUMNS = ("id", "path", "target", "label", "predicted")
PROBABILITY = "probability/"
ARRAYS = ("ids", "paths", "targets", "probabilities")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Targets and probabilities of N images over K labels, in the order of the rows of their table.

    Attributes:
        ids: (N,) one identity per image.
        paths: (N,) where each image is.
        targets: (N,) int64 label numbers, or (N, K) int8 of 0 and 1 for multi-label.
        probabilities: (N, K) float32 in [0, 1]; each row sums to 1 unless multi-label.
        labels: K label names in the order of the columns.
        task: multiclass or multilabel.
        groups: N rows of the group columns of the table; may have no column.

    Raises:
        RunError: A probability is not a finite number.
        DataError: The parts do not fit each other, or a group column has a name of ours.
    """

    ids: np.ndarray
    paths: np.ndarray
    targets: np.ndarray
    probabilities: np.ndarray
    labels: tuple[str, ...]
    task: PredictionTask
    groups: pd.DataFrame

    def __post_init__(self) -> None:
        """Bring the arrays to their types and check that they fit."""
        shape = (len(self.ids), len(self.labels))
        target_shape = shape if self.multilabel else shape[:1]
        object.__setattr__(self, "targets", np.asarray(self.targets, np.int8 if self.multilabel else np.int64))
        object.__setattr__(self, "probabilities", np.asarray(self.probabilities, np.float32))
        object.__setattr__(self, "groups", self.groups.reset_index(drop=True))
        if (self.probabilities.shape, self.targets.shape) != (shape, target_shape) or len(self.paths) != shape[0]:
            raise DataError(
                f"Predictions of {shape[0]} images over {shape[1]} labels need probabilities of shape {shape} and "
                f"targets of shape {target_shape}, not {self.probabilities.shape} and {self.targets.shape}."
            )
        check_finite(self.probabilities)
        highest = 1 if self.multilabel else len(self.labels) - 1
        if self.num and not (self.targets.min() >= 0 and self.targets.max() <= highest):
            raise DataError(f"Targets must lie in 0..{highest}; they span {self.targets.min()}..{self.targets.max()}.")
        taken = [name for name in self.groups.columns if name in _COLUMNS or str(name).startswith(PROBABILITY)]
        if taken or (len(self.groups.columns) and len(self.groups) != self.num):
            raise DataError(
                f"Group columns need a value per image and names other than {', '.join(_COLUMNS)} and {PROBABILITY}*; "
                f"found {len(self.groups)} rows, names taken: {taken}. Rename the columns."
            )

    @classmethod
    def from_logits(cls, table: ImageTable, rows: np.ndarray, logits: np.ndarray) -> "Predictions":
        """Join the logits of the given (M,) rows of the table with what the table knows of them, in row order.

        The logits are (M, K), or (V, M, K) for images in several views, whose probabilities are averaged.

        Raises:
            RunError: A row is there twice, or a probability is not a finite number.
        """
        order = np.argsort(rows, kind="stable")
        rows = np.asarray(rows)[order]
        if (np.diff(rows) == 0).any():
            raise RunError(
                f"{int((np.diff(rows) == 0).sum()):,} images were predicted more than once; padding must be dropped."
            )
        frame = table.frame.iloc[rows]
        return cls(
            ids=frame["id"].to_numpy(object),
            paths=frame["path"].to_numpy(object),
            targets=table.targets()[rows],
            probabilities=to_probabilities(np.asarray(logits)[..., order, :], table.task),
            labels=tuple(table.labels),
            task=table.task,
            groups=frame[list(table.groups)],
        )

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels."""
        return self.task == "multilabel"

    @property
    def num(self) -> int:
        """How many images there are."""
        return len(self.ids)

    @property
    def predicted(self) -> np.ndarray:
        """(N,) number of the most probable label (the first of equals), or (N, K) int8: probability above 0.5."""
        if self.multilabel:
            return (self.probabilities > THRESHOLD).astype(np.int8)
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def right(self) -> np.ndarray:
        """(N,) bool: whether what is predicted of an image is right; with several labels, whether all of them are."""
        same = self.predicted == self.targets
        return np.asarray(same.all(axis=1) if self.multilabel else same)

    @property
    def confidence(self) -> np.ndarray:
        """(N,) float64 how sure each answer is, as `confidence_of` says."""
        return confidence_of(self.probabilities, self.task)

    def take(self, rows: np.ndarray | list[int]) -> "Predictions":
        """Return some of the images, in the order of the rows."""
        arrays: dict[str, Any] = {name: getattr(self, name)[rows] for name in ARRAYS}
        return replace(self, **arrays, groups=self.groups.iloc[rows])

    @property
    def label_names(self) -> list[str]:
        """The true label of each image by name; several are joined by '|'."""
        return name_labels(self.targets, self.labels)

    @property
    def predicted_names(self) -> list[str]:
        """The predicted label of each image by name; several are joined by '|'."""
        return name_labels(self.predicted, self.labels)

    def save(self, path: Path) -> None:
        """Write the Parquet file at `path` atomically; the labels, the task and the version go into its schema."""
        frame = pd.DataFrame({"id": self.ids, "path": self.paths}).astype(str)
        frame["label"] = self.label_names
        frame["predicted"] = self.predicted_names
        probabilities = pd.DataFrame(self.probabilities, columns=[PROBABILITY + label for label in self.labels])
        groups = self.groups if len(self.groups.columns) else pd.DataFrame(index=frame.index)
        table = pa.Table.from_pandas(pd.concat([frame, probabilities, groups], axis=1), preserve_index=False)
        target_type = pa.list_(pa.int8()) if self.multilabel else pa.int64()
        table = table.add_column(_COLUMNS.index("target"), "target", pa.array(list(self.targets), target_type))
        facts = {"labels": json.dumps(list(self.labels)), "task": self.task, "version": _VERSION}
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **facts})
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            pq.write_table(table, temporary)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote.

        Raises:
            RunError: There is no such file, or it is not one of ours.
        """
        table = _read(path)
        labels, task = _facts(table, path)
        expected = [*_COLUMNS, *(PROBABILITY + label for label in labels)]
        missing = [name for name in expected if name not in table.column_names]
        if missing:
            raise RunError(
                f"{path} lacks the columns {', '.join(missing)}. Write it anew with: finetune evaluate run=…"
            )
        frame = table.to_pandas()
        targets = frame["target"].to_numpy()
        return cls(
            ids=frame["id"].to_numpy(object),
            paths=frame["path"].to_numpy(object),
            targets=np.array(list(targets), np.int8).reshape(-1, len(labels)) if task == "multilabel" else targets,
            probabilities=frame[expected[len(_COLUMNS) :]].to_numpy(np.float32),
            labels=labels,
            task=task,
            groups=frame.drop(columns=expected),
        )


def to_probabilities(logits: np.ndarray, task: PredictionTask) -> np.ndarray:
    """Turn logits into (N, K) float32 probabilities: softmax over the labels, or a sigmoid each for multi-label.

    The logits are (N, K), or (V, N, K) for images in several views, over which the mean of the probabilities is taken.
    """
    values = logits.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        if task == "multilabel":
            probabilities = 1 / (1 + np.exp(-values))
        else:
            powers = np.exp(values - values.max(axis=-1, keepdims=True))
            probabilities = powers / powers.sum(axis=-1, keepdims=True)
        if values.ndim > 2:
            probabilities = probabilities.mean(axis=0)
    return np.asarray(probabilities, np.float32)


def confidence_of(probabilities: np.ndarray, task: PredictionTask) -> np.ndarray:
    """Return how sure answers of probabilities (N, K) are (N,): the highest; of several labels the unsurest."""
    values = probabilities.astype(np.float64)
    if task == "multilabel":
        return np.asarray(np.maximum(values, 1 - values).min(axis=1))
    return np.asarray(values.max(axis=1))


def check_finite(probabilities: np.ndarray) -> None:
    """Refuse probabilities that are not numbers.

    Raises:
        RunError: Some are not finite; says of how many images.
    """
    bad = int((~np.isfinite(probabilities)).any(axis=-1).sum())
    if bad:
        raise RunError(
            f"The network gave probabilities that are not numbers for {bad:,} of {len(probabilities):,} images. "
            "Lower the rate (optimizer.lr) or use trainer.precision=32-true."
        )


def name_labels(numbers: np.ndarray, labels: Sequence[str]) -> list[str]:
    """Name label numbers of shape (N,), or indicators of shape (N, K) with the names joined by '|'."""
    if numbers.ndim == 1:
        return [labels[number] for number in numbers.tolist()]
    return [SEPARATOR.join(labels[number] for number in np.flatnonzero(row).tolist()) for row in numbers]


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise RunError(f"There are no predictions at {path}. Write them with: finetune evaluate run=…")
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise RunError(
            f"{path} is not a readable Parquet file ({error}). Write it anew: finetune evaluate run=…"
        ) from error


def _facts(table: pa.Table, path: Path) -> tuple[tuple[str, ...], Any]:
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    missing = [key for key in ("labels", "task", "version") if key.encode() not in metadata]
    if missing:
        raise RunError(
            f"{path} was not written by finetune: its schema lacks {', '.join(missing)}. Point at a run's file."
        )
    version, task = metadata[b"version"].decode(), metadata[b"task"].decode()
    if version != _VERSION or task not in ("multiclass", "multilabel"):
        raise RunError(
            f"{path} has version {version} and task '{task}', not version {_VERSION}. Use a matching finetune."
        )
    return tuple(json.loads(metadata[b"labels"])), task
