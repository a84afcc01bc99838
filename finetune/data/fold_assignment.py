"""Which fold each image is held out in, for cross-validations of runs and of penalties alike."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold


def assign_folds(
    classes: npt.NDArray[np.int64], units: npt.NDArray[np.int64] | None, folds: int, seed: int, *, stratified: bool
) -> npt.NDArray[np.int64]:
    """Return the fold (N,) in which each image is held out, by scikit-learn.

    Args:
        classes: Of each image (N,).
        units: Group of each image (N,), which is not parted; None where each stands alone.
        folds: How many.
        seed: Seeds the order.
        stratified: Whether each class is spread over the folds.
    """
    options: dict[str, Any] = {"n_splits": folds, "shuffle": True, "random_state": seed}
    splitter: Any
    if stratified:
        splitter = StratifiedKFold(**options) if units is None else StratifiedGroupKFold(**options)
    else:
        splitter = KFold(**options) if units is None else GroupKFold(**options)
    result = np.full(len(classes), -1, np.int64)
    with warnings.catch_warnings():  # that a class is in fewer folds than there are is told by the scores
        warnings.filterwarnings("ignore", message="The least populated class")
        for fold, (_, held) in enumerate(splitter.split(np.zeros((len(classes), 1)), classes, units)):
            result[held] = fold
    return result
