"""Audit findings, image by image and counted: the table and the document that are written."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.audit.duplicates import Duplicates
from finetune.audit.image_stats import ImageStats
from finetune.audit.label_errors import LabelIssues
from finetune.audit.outliers import FAR_FEATURES
from finetune.config.settings.review_groups import AuditSettings
from finetune.data.image_stores import FileStore
from finetune.data.table import SPLITS, ImageTable
from finetune.evaluation.predictions import SEPARATOR
from finetune.runs.csv_file import write_csv
from finetune.runs.run import write_json

# by name, what each kind means; the first are the worst
KINDS: Mapping[str, str] = {
    "leakage": "images of val or test that are in an earlier split too: their score flatters the model",
    "unreadable": "files that no program can decode",
    "label_conflict": "duplicates with different labels: at least one is wrong",
    "likely_mislabelled": "labels that heads which have not seen the image contradict",
    "duplicate": "images that are there more than once",
    "outlier": "images unlike all others",
    "odd_file": "sizes, modes and frames unlike the others",
}
_COLUMNS = ("path", "label", "split", "made_split", "duplicate_group", "issues", "suggested_label", "label_quality",
           "outlier_distance", "note")  # fmt: skip


@dataclass(frozen=True)
class Findings:
    """What an audit found in N readable images.

    Attributes:
        table: The images.
        own_splits: Whether the splits came with the data; else they are those that a run would make.
        facts: Of each image's file (N).
        duplicates: Images that are there more than once.
        labels: Which labels are likely wrong; None where that was not asked for.
        distances: How far each image is from the others, in robust standard deviations (N,).
        odd: What is odd about each file (N), empty for most.
        unreadable: Path and reason of each image that cannot be read.
        seconds: How long it took.
    """

    table: ImageTable
    own_splits: bool
    facts: Sequence[ImageStats]
    duplicates: Duplicates
    labels: LabelIssues | None
    distances: npt.NDArray[np.float64]
    odd: Sequence[str]
    unreadable: Sequence[tuple[str, str]]
    seconds: float

    def marked(self, kind: str) -> npt.NDArray[np.bool_]:
        """Return whether each readable image (N,) is of a kind."""
        found = {
            "leakage": self.duplicates.leaking,
            "label_conflict": self.duplicates.conflicting,
            "duplicate": self.duplicates.group > 0,
            "outlier": self.distances > FAR_FEATURES,
            "odd_file": np.array([bool(words) for words in self.odd]),
        }
        if kind == "likely_mislabelled" and self.labels is not None:
            return self.labels.wrong
        return found.get(kind, np.zeros(len(self.table), bool))

    def counts(self) -> dict[str, int]:
        """Return how many images are of each kind."""
        found = {kind: int(self.marked(kind).sum()) for kind in KINDS}
        return {**found, "unreadable": len(self.unreadable)}

    def suggestion(self, row: int) -> str | None:
        """Return the label that an image more likely has; None where its own is as good."""
        if self.labels is None or not self.labels.wrong[row]:
            return None
        probabilities = self.labels.probabilities[row]
        if self.table.task == "multilabel":
            return SEPARATOR.join(np.array(self.table.labels)[probabilities > 0.5].tolist())
        return self.table.labels[int(probabilities.argmax())]

    def quality(self, row: int) -> float | None:
        """Return how likely an image's label is right, 0 to 1; None where nothing is known."""
        if self.labels is None or np.isnan(self.labels.quality[row]):
            return None
        return float(self.labels.quality[row])

    def ranked(self, kind: str) -> list[int]:
        """Return the rows of a kind, the clearest first."""
        rows = np.flatnonzero(self.marked(kind)).tolist()
        if kind == "likely_mislabelled" and self.labels is not None:
            quality = self.labels.quality
            return sorted(rows, key=lambda row: float(quality[row]))
        if kind == "outlier":
            return sorted(rows, key=lambda row: -float(self.distances[row]))
        if kind in ("leakage", "label_conflict", "duplicate"):
            return sorted(rows, key=lambda row: (int(self.duplicates.group[row]), row))
        return rows


def table_rows(findings: Findings) -> list[dict[str, Any]]:
    """Return a row for each readable image, in the columns that `data=csv` reads and some that explain.

    A split is under `split` only where it came with the data: a run makes the others itself, by another rule where that
    is asked for, such as data.splits.group=duplicate_group.
    """
    table, group = findings.table, findings.duplicates.group
    marks = {kind: findings.marked(kind) for kind in KINDS}
    frame, names = table.frame, table.names()
    rows = []
    for row in range(len(table)):
        split = frame["split"].iloc[row]
        rows.append({
            "path": _place_of(table, str(frame["path"].iloc[row])),
            "label": SEPARATOR.join(names[row]),
            **({"split": split} if findings.own_splits else {"made_split": split}),
            **{column: frame[column].iloc[row] for column in table.groups},
            "duplicate_group": f"group {group[row]}" if group[row] else None,
            "issues": ";".join(kind for kind, marked in marks.items() if marked[row]),
            "suggested_label": findings.suggestion(row),
            "label_quality": rounded(findings.quality(row)),
            "outlier_distance": rounded(float(findings.distances[row])),
            "note": findings.odd[row] or None,
        })  # fmt: skip
    return rows


def _place_of(table: ImageTable, path: str) -> str:
    """Return where an image is, as a table in another folder names it."""
    return str(Path(path).absolute()) if isinstance(table.store, FileStore) else path


def rounded(value: float | None) -> float | None:
    """Return a number in four digits."""
    return None if value is None else float(f"{value:.4g}")


def _document(findings: Findings, settings: AuditSettings) -> dict[str, Any]:
    """Return the content of audit.json."""
    table, counts = findings.table, findings.counts()
    by_split = table.counts()
    missing = {split: [label for label, count in by_split[split].items() if not count] for split in SPLITS}
    pairs = findings.duplicates.pairs
    return {
        "images": len(table), "labels": list(table.labels), "task": table.task, "fingerprint": table.fingerprint(),
        "splits": table.sizes(), "own_splits": findings.own_splits, "counts": counts,
        "pairs": {"exact": int(pairs.exact.sum()), "near": int((~pairs.exact).sum())},
        "duplicate_groups": int(findings.duplicates.group.max(initial=0)),
        "per_class": by_split, "missing_classes": {split: names for split, names in missing.items() if names},
        "unreadable": [{"path": path, "reason": reason} for path, reason in findings.unreadable],
        "settings": asdict(settings), "seconds": round(findings.seconds, 2),
    }  # fmt: skip


def write_findings(findings: Findings, settings: AuditSettings, folder: Path) -> dict[str, Any]:
    """Write the table, by whose sorting likely mislabelled images and duplicates are found, and return the document."""
    rows = table_rows(findings)
    columns = [name for name in dict.fromkeys([*_COLUMNS, *findings.table.groups]) if any(name in row for row in rows)]
    write_csv(folder / "audit.csv", rows, columns)
    found = _document(findings, settings)
    write_json(folder / "audit.json", found)
    return found
