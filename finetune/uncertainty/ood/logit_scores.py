"""Out-of-distribution scores from logits alone (energy, maximum softmax probability), before calibration."""

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, softmax

from finetune.data.table import LabelTask

_Array = npt.NDArray[np.float64]


def energy(logits: npt.NDArray[np.floating], task: LabelTask) -> _Array:
    """Return the energy (N,) of logits (N, K): minus their log-sum-exp; summed over labels, where there are several.

    Source: Liu et al. 2020, Energy-based Out-of-distribution Detection, section 3.1, at temperature 1; Wang et al.
    2021, Can multi-label classification networks know what they don't know?, section 3.2 (the sum over labels).
    """
    values = logits.astype(np.float64)
    if task == "multilabel":
        return np.asarray(-np.logaddexp(0, values).sum(axis=1))
    return np.asarray(-logsumexp(values, axis=1))


def msp(logits: npt.NDArray[np.floating]) -> _Array:
    """Return one minus the largest softmax probability (N,) of logits (N, K).

    Source: Hendrycks and Gimpel 2017, A Baseline for Detecting Misclassified and Out-of-Distribution Examples,
    section 3.
    """
    return np.asarray(1 - softmax(logits.astype(np.float64), axis=1).max(axis=1))
