"""Groups of images by the values of columns: their names, and weights that let each group count the same."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetune.data.table import ImageTable

_MISSING = "missing"
JOINED = " x "


def group_names(column: pd.Series) -> npt.NDArray[Any]:
    """Return the name of each row's group (N,); rows without a value are a group of that name."""
    return np.array([_name(value) for value in column.tolist()], dtype=object)


def joined_names(frame: pd.DataFrame, columns: Sequence[str]) -> npt.NDArray[Any]:
    """Return the name of each row's group (N,) where several columns are crossed, such as `A x f`."""
    names = [group_names(frame[column]) for column in columns]
    return np.array([JOINED.join(row) for row in zip(*names, strict=True)], dtype=object)


def balancing_weights(targets: npt.NDArray[Any], groups: npt.NDArray[Any] | None = None) -> npt.NDArray[np.float64]:
    """Return positive weights (N,) with which each class of each group has the same sum; their mean is 1.

    An image with several labels counts by the rarest of them in its group, one with none as the whole group does.

    Args:
        targets: Classes (N,), or multi-hot labels (N, K).
        groups: The group of each image (N,); None for a single one.

    Source: Idrissi et al. 2022, Simple data balancing achieves competitive worst-group-accuracy, section 3 (RWG, RWS);
    Kamiran and Calders 2012, Data preprocessing techniques for classification without discrimination, section 4.3
    (reweighing, which here evens out classes and groups as well).
    """
    numbers = np.zeros(len(targets), dtype=np.int64) if groups is None else pd.factorize(groups)[0]
    if targets.ndim == 1:
        cells = numbers * (int(targets.max(initial=0)) + 1) + targets
        weights = 1.0 / np.bincount(cells)[cells]
    else:
        weights = np.zeros(len(targets))
        for number in np.unique(numbers):
            own = targets[numbers == number]
            rarity = 1.0 / np.maximum(own.sum(0), 1)
            weights[numbers == number] = np.maximum((own * rarity).max(1), 1.0 / len(own))
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def training_balance(table: ImageTable, columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the balancing weights of a table's training images (N,), over the groups of columns if there are any."""
    rows = table.rows("train")
    groups = joined_names(table.frame.iloc[rows], columns) if columns else None
    return balancing_weights(table.targets()[rows], groups)


def _name(value: Any) -> str:
    if value is None or (not isinstance(value, str) and bool(pd.isna(value))):
        return _MISSING
    # a column of whole numbers becomes one of fractions where a value is missing
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
