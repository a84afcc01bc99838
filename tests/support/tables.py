"""Tables of images that need no images: labels, splits and groups alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune.data.image_stores import ArrayStore
from finetune.data.table import ImageTable, build_frame

STORE = ArrayStore(np.zeros((1, 2, 2), dtype=np.uint8))


def table_of(labels: Sequence[Any], splits: Sequence[str | None] = (), groups: Sequence[str | None] = ()) -> ImageTable:
    """Return a table of images with the given labels, and splits and groups where there are any."""
    ids = [f"{number:04d}" for number in range(len(labels))]
    columns = {"id": ids, "path": ["0"] * len(ids), "label": list(labels), "split": list(splits) or [None] * len(ids)}
    if groups:
        columns["patient"] = list(groups)
    multilabel = isinstance(labels[0], tuple)
    names = {name for label in labels for name in (label if multilabel else (label,))}
    task: Any = "multilabel" if multilabel else "multiclass"
    return ImageTable(build_frame(columns), tuple(sorted(names)), task, STORE, ("patient",) if groups else ())


def labels_of(sizes: Sequence[int]) -> list[str]:
    return [f"class {number}" for number, size in enumerate(sizes) for _ in range(size)]
