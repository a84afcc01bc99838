"""Examples worth looking at: images that a network is best at, worst at, and some at random."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetune.evaluation.predictions import Predictions

_Rows = npt.NDArray[np.int64]


def choose_examples(predictions: Predictions, number: int, seed: int = 0) -> dict[str, _Rows]:
    """Return rows of up to `number` images for each of best, worst and random.

    best: right and surest, one class after the other. worst: wrong and surest. random: of all that are left.

    Args:
        predictions: Of N images.
        number: Of each kind.
        seed: Of the random ones.
    """
    right, sure = predictions.right, predictions.confidence
    best = _in_turn(predictions, np.flatnonzero(right), sure)[:number]
    wrong = np.flatnonzero(~right)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:number]
    rest = np.setdiff1d(np.arange(predictions.num), [*best, *worst])
    chosen = np.random.default_rng(seed).permutation(rest)[:number]
    return {"best": best, "worst": worst, "random": np.sort(chosen)}


def _in_turn(predictions: Predictions, rows: _Rows, sure: npt.NDArray[np.float64]) -> _Rows:
    """Return rows with the surest of each class first, then the second of each, and so on."""
    targets = predictions.targets if predictions.targets.ndim == 1 else predictions.targets.argmax(axis=1)
    ordered = rows[np.argsort(-sure[rows], kind="stable")]
    turns = pd.Series(targets[ordered]).groupby(targets[ordered]).cumcount().to_numpy()
    return ordered[np.argsort(turns, kind="stable")]
