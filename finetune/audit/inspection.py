"""An audit of a table of images and their features: every kind of finding, in the order of their dependence."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from finetune.audit.duplicates import DuplicateThresholds, connected_components, find_pairs, group_duplicates
from finetune.audit.findings import Findings
from finetune.audit.image_stats import measure_images
from finetune.audit.label_errors import LabelIssues, find_label_issues
from finetune.audit.outliers import file_anomalies, outlier_scores
from finetune.data.table import ImageTable
from finetune.models.heads.fit import HeadExamples


@dataclass(frozen=True)
class AuditChecks:
    """How an audit is made.

    Attributes:
        thresholds: When two images are near duplicates.
        labels: Whether likely wrong labels are looked for.
        folds: Of the cross-validation behind them.
        group: Column whose values stay on one side of a fold, besides duplicates; None for none.
        seed: Deals images out to folds.
    """

    thresholds: DuplicateThresholds = DuplicateThresholds()
    labels: bool = True
    folds: int = 5
    group: str | None = None
    seed: int = 0


def audit_images(
    table: ImageTable,
    features: npt.NDArray[np.float32],
    settings: AuditChecks,
    *,
    own_splits: bool,
    unreadable: Sequence[tuple[str, str]] = (),
) -> Findings:
    """Return what is found in images that can be read.

    Args:
        table: The images (N), split.
        features: Of a pretrained backbone (N, F), in the order of the table.
        settings: How.
        own_splits: Whether the splits came with the data.
        unreadable: Path and reason of each image that cannot be read.
    """
    started = time.monotonic()
    facts = measure_images(table.store, table.frame["path"].tolist())
    bits = np.stack([fact.bits for fact in facts])
    pairs = find_pairs(table.frame["digest"].tolist(), bits, features, settings.thresholds)
    duplicates = group_duplicates(pairs, table.frame["split"].tolist(), table.names())
    return Findings(
        table=table,
        own_splits=own_splits,
        facts=facts,
        duplicates=duplicates,
        labels=label_issues(table, features, duplicates.group, settings) if settings.labels else None,
        distances=outlier_scores(features),
        odd=file_anomalies(facts),
        unreadable=unreadable,
        seconds=time.monotonic() - started,
    )


def label_issues(
    table: ImageTable, features: npt.NDArray[np.float32], duplicates: npt.NDArray[np.int64], settings: AuditChecks
) -> LabelIssues:
    """Return which labels are likely wrong; an image's duplicates are not among what judges it."""
    examples = HeadExamples(
        features=torch.from_numpy(np.ascontiguousarray(features, np.float32)),
        targets=torch.from_numpy(table.targets()),
        task=table.task,
        num_classes=table.num_classes,
        groups=_units_of(table, duplicates, settings.group),
    )
    return find_label_issues(examples, folds=settings.folds, seed=settings.seed)


def _units_of(table: ImageTable, duplicates: npt.NDArray[np.int64], group: str | None) -> npt.NDArray[np.int64]:
    """Return a number for what stays together (N,): images that show the same, or have the same value in a column."""
    first: dict[tuple[str, object], int] = {}
    links = []
    for row in range(len(table)):
        value = table.frame[group].iloc[row] if group is not None else None
        keys: list[tuple[str, object]] = [("duplicate", int(duplicates[row]))] if duplicates[row] else []
        keys += [("group", value)] if isinstance(value, str) else []
        links += [(row, first.setdefault(key, row)) for key in keys]
    ends = np.array(links, np.int64).reshape(-1, 2)
    return connected_components(ends[:, 0], ends[:, 1], len(table))
