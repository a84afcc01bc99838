"""Selective prediction: which images to decide and which to leave to a person, by confidence."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.errors import ConfigError

_Array = npt.NDArray[np.float64]
CONFIDENCE = 0.95  # with which a promise is kept


@dataclass(frozen=True)
class RiskCoverage:
    """The share of errors among the surest images, for each number of them.

    Attributes:
        coverage: Share of images that are decided (N,), rising.
        risk: Share of errors among them (N,).
        area: Mean risk over all coverages.
    """

    coverage: _Array
    risk: _Array
    area: float


@dataclass(frozen=True)
class ConfidenceThreshold:
    """How sure a network has to be for a target accuracy.

    Attributes:
        value: The least confidence that is decided; above 1 where nothing keeps the promise.
        coverage: Share of the images that it was chosen on which are decided.
        accuracy: Of those.
        bound: Accuracy that new images have at least, with the stated confidence.
    """

    value: float
    coverage: float
    accuracy: float
    bound: float


def risk_coverage(confidence: _Array, right: npt.NDArray[np.bool_]) -> RiskCoverage:
    """Return the risk at each coverage, images of the same confidence taken together.

    Source: El-Yaniv and Wiener 2010, On the foundations of noise-free selective classification, section 2.
    """
    order = np.argsort(-confidence, kind="stable")
    sure, wrong = confidence[order], ~right[order]
    seen = np.arange(1, len(order) + 1)
    last = np.append(sure[1:] != sure[:-1], True)
    ends = np.flatnonzero(last)
    group = np.searchsorted(ends, np.arange(len(order)))
    risk = (np.cumsum(wrong) / seen)[ends][group]
    return RiskCoverage(seen / len(order), risk, float(risk.mean()))


def accuracy_threshold(confidence: _Array, right: npt.NDArray[np.bool_], accuracy: float) -> ConfidenceThreshold:
    """Return the threshold that decides most images with at least this accuracy on new ones.

    Every number of the surest images that the search looks at is tested by the exact binomial bound, at a level that is
    divided by how many it looks at.

    Args:
        confidence: Of each image (N,).
        right: Whether each is right (N,).
        accuracy: That decided images are to have, below 1.

    Raises:
        ConfigError: The accuracy is none.

    Source: Geifman and El-Yaniv 2017, Selective classification for deep neural networks, algorithm 1.
    """
    if not 0 < accuracy < 1:
        raise ConfigError(f"target_accuracy={accuracy} must lie above 0 and below 1, such as 0.98.")
    order = np.argsort(-confidence, kind="stable")
    sure, good = confidence[order], right[order]
    ends = np.flatnonzero(np.append(sure[1:] != sure[:-1], True)) + 1  # images that are as sure go together
    looks = max(1, math.ceil(math.log2(len(ends) + 1)))
    low, high, found = 0, len(ends) - 1, ConfidenceThreshold(math.inf, 0.0, math.nan, math.nan)
    while low <= high:
        middle = (low + high) // 2
        number = int(ends[middle])
        bound = lower_bound(int(good[:number].sum()), number, (1 - CONFIDENCE) / looks)
        if bound >= accuracy:
            found = ConfidenceThreshold(float(sure[number - 1]), number / len(sure), float(good[:number].mean()), bound)
            low = middle + 1
        else:
            high = middle - 1
    return found


def lower_bound(hits: int, number: int, tail: float) -> float:
    """Return the least proportion under which so many hits are not rarer than `tail`.

    Source: Clopper and Pearson 1934, The use of confidence or fiducial limits.
    """
    from scipy.stats import beta

    return float(beta.ppf(tail, hits, number - hits + 1)) if hits else 0.0
