"""The table of predictions for unlabelled images, written as they come, however many there are."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finetune.errors import ConfigError, nearest
from finetune.evaluation.guarantees import Guarantees
from finetune.evaluation.predictions import (
    PROBABILITY,
    SEPARATOR,
    THRESHOLD,
    PredictionTask,
    check_finite,
    to_probabilities,
)
from finetune.runs.csv_file import CsvRows
from finetune.runs.run import replacing
from finetune.uncertainty.ood.detector import Detector, FeaturesAndLogits

ROW_GROUP = 10_000
_NOTHING = Guarantees()
YES, NO = "yes", "no"
_OOD = {"ood_score": pa.float32(), "is_ood": pa.bool_(), "ood": pa.float32(), "unlike_training": pa.string()}
PredictionRow = dict[str, Any]


@dataclass(frozen=True)
class TableFormat:
    """The columns of a table of predictions.

    Multi-class: path, predicted, probability (of the predicted label), then label_1, probability_1 … for the `top_k`
    most probable labels, or all where there are fewer. Multi-label: path, predicted (labels above the threshold,
    joined by '|'), probability/<label> for each. What is promised has columns after them. Where the run can tell,
    `ood_score` (how unlike the training images an image is) and `is_ood` follow, and both again under their older
    names: `ood`, and `unlike_training`, yes or no; then `component_1` … With `errors`, a last column `error` says why
    a row has no prediction.
    """

    labels: tuple[str, ...]
    task: PredictionTask
    top_k: int = 5
    threshold: float = THRESHOLD
    errors: bool = False
    guarantees: Guarantees = _NOTHING
    detector: Detector | None = None
    components: int = 0

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Names and types of the columns."""
        columns = {"path": pa.string(), "predicted": pa.string()}
        if self.task == "multilabel":
            columns |= {PROBABILITY + label: pa.float32() for label in self.labels}
        else:
            columns["probability"] = pa.float32()
            for rank in range(1, min(self.top_k, len(self.labels)) + 1):
                columns |= {f"label_{rank}": pa.string(), f"probability_{rank}": pa.float32()}
        columns |= dict.fromkeys(self.guarantees.columns, pa.string())
        if self.detector is not None:
            columns |= _OOD
        columns |= {f"component_{place}": pa.float32() for place in range(1, self.components + 1)}
        return columns | ({"error": pa.string()} if self.errors else {})

    def rows(
        self,
        paths: Sequence[str],
        logits: np.ndarray,
        errors: Sequence[str | None],
        seen: FeaturesAndLogits | None = None,
    ) -> list[PredictionRow]:
        """Make a row per path; logits (M, K), or (V, M, K) in several views, are those of the paths without error.

        What a detector needs to see of the same images is `seen`.

        Raises:
            RunError: A probability is not a finite number.
        """
        probabilities = to_probabilities(logits, self.task)
        check_finite(probabilities)
        unlike = self._ood_cells(seen) if seen is not None else [{}] * len(probabilities)
        remaining = iter([self._cells(row) | more for row, more in zip(probabilities, unlike, strict=True)])
        return [
            {"path": path, "error": error} if error is not None else {"path": path, **next(remaining)}
            for path, error in zip(paths, errors, strict=True)
        ]

    def _ood_cells(self, seen: FeaturesAndLogits) -> list[PredictionRow]:
        """Return the cells that say how unlike the training images each image is."""
        if self.detector is None:
            return [{} for _ in range(seen.logits.shape[-2])]
        scores = self.detector.score(seen)
        cells: list[PredictionRow] = [
            dict(zip(_OOD, (score, unlike, score, YES if unlike else NO), strict=True))
            for score, unlike in zip(scores.tolist(), self.detector.is_ood(scores).tolist(), strict=True)
        ]
        if self.components and seen.features is not None:
            for row, place in zip(cells, self.detector.reduce(seen.features, self.components), strict=True):
                row |= {f"component_{number}": float(value) for number, value in enumerate(place, 1)}
        return cells

    def _cells(self, probabilities: np.ndarray) -> PredictionRow:
        guaranteed = self.guarantees.cells(probabilities, self.labels, self.task)
        if self.task == "multilabel":
            above = [label for label, value in zip(self.labels, probabilities, strict=True) if value > self.threshold]
            named = {PROBABILITY + label: float(p) for label, p in zip(self.labels, probabilities, strict=True)}
            return {"predicted": SEPARATOR.join(above), **named, **guaranteed}
        order = np.argsort(-probabilities, kind="stable")
        cells: PredictionRow = {"predicted": self.labels[order[0]], "probability": float(probabilities[order[0]])}
        for rank, number in enumerate(order[: self.top_k], start=1):
            cells |= {f"label_{rank}": self.labels[number], f"probability_{rank}": float(probabilities[number])}
        return cells | guaranteed


class RowWriter(Protocol):
    """Takes rows a few at a time."""

    def append(self, rows: list[PredictionRow]) -> None:
        """Write some rows; a cell that a row lacks stays empty."""


def open_table(path: Path, columns: dict[str, pa.DataType]) -> AbstractContextManager[RowWriter]:
    """Open a table for appending; it gets its name when the block ends well, and nothing is left behind otherwise.

    Raises:
        ConfigError: The ending is neither .csv nor .parquet.
    """
    writers = {".csv": _open_csv, ".parquet": _open_parquet}
    if path.suffix.lower() not in writers:
        hint = nearest(path.suffix, writers)
        raise ConfigError(f"output={path} has an unknown ending. Use one of {', '.join(writers)}.{hint}")
    return writers[path.suffix.lower()](path, columns)


@contextmanager
def _open_csv(path: Path, columns: dict[str, pa.DataType]) -> Iterator[RowWriter]:
    with (
        replacing(path) as temporary,  # below, a file name that is not UTF-8 keeps its bytes
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = CsvRows(file)
        writer.append(columns)
        yield _CsvTable(writer, list(columns))


class _CsvTable:
    def __init__(self, writer: CsvRows, columns: Sequence[str]) -> None:
        self.writer = writer
        self.columns = columns

    def append(self, rows: list[PredictionRow]) -> None:
        """Write some rows; probabilities with the digits of their type."""
        for row in rows:
            cells = (row.get(name) for name in self.columns)
            self.writer.append(f"{cell:.7g}" if isinstance(cell, float) else cell for cell in cells)


@contextmanager
def _open_parquet(path: Path, columns: dict[str, pa.DataType]) -> Iterator[RowWriter]:
    schema = pa.schema(list(columns.items()))
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        rows = _ParquetRows(writer)
        yield rows
        rows.flush()


class _ParquetRows:
    """Gathers rows to row groups of a size that readers like."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self.writer = writer
        self.waiting: list[PredictionRow] = []

    def append(self, rows: list[PredictionRow]) -> None:
        """Write some rows."""
        self.waiting += rows
        if len(self.waiting) >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self.writer.write_table(pa.Table.from_pylist(self.waiting, schema=self.writer.schema))
        self.waiting = []
