"""Conformal prediction sets: sets of labels that hold the true one with a stated probability.

The images that the bar is set on must be exchangeable with new ones and have trained nothing.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from finetune.errors import ConfigError

_Array = npt.NDArray[np.float64]
ConformityScore = Literal["lac", "aps"]


@dataclass(frozen=True)
class Conformal:
    """How sets are made.

    Attributes:
        score: lac (all labels of at least some probability), or aps (the most probable, up to some sum).
        bar: The score up to which a label belongs to the set.
        coverage: The promised probability.
    """

    score: ConformityScore
    bar: float
    coverage: float

    def sets(self, probabilities: _Array) -> npt.NDArray[np.bool_]:
        """Return which labels (N, K) are in the set of each image."""
        found = conformity_scores(probabilities, self.score) <= self.bar + 1e-12
        found[np.arange(len(found)), np.argmax(probabilities, axis=1)] = True  # no set is empty, which only adds to it
        return np.asarray(found)


def fit_conformal(
    probabilities: _Array, targets: npt.NDArray[np.int64], coverage: float, score: ConformityScore = "lac"
) -> Conformal:
    """Return how sets are made that hold the true label of a new image with this probability.

    Args:
        probabilities: Of images that trained nothing (N, K).
        targets: Their labels (N,).
        coverage: Such as 0.9.
        score: lac gives the smallest sets in the mean, aps sets whose coverage differs less from image to image.

    Raises:
        ConfigError: The coverage is none, or the images are too few for it.

    Source: Sadinle, Lei and Wasserman 2019, Least ambiguous set-valued classifiers, section 2 (lac); Romano, Sesia and
    Candès 2020, Classification with valid and adaptive coverage, section 2, without randomisation (aps).
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage={coverage} must lie above 0 and below 1, such as 0.9.")
    number = len(targets)
    place = math.ceil((number + 1) * coverage - 1e-9)  # 0.9 of 10 is 9, whatever its digits
    if place > number:
        least = math.ceil(coverage / (1 - coverage) - 1e-9)
        raise ConfigError(
            f"coverage={coverage} needs {least:,} validation images or more, and there are {number:,}. Ask for "
            f"{math.floor(100 * number / (number + 1)) / 100:g} or less."
        )
    own = conformity_scores(probabilities, score)[np.arange(number), targets]
    return Conformal(score, float(np.sort(own)[place - 1]), coverage)


def conformity_scores(probabilities: _Array, score: ConformityScore) -> _Array:
    """Return how unlike each label (N, K) is: 1 minus its probability, or the sum down to its own."""
    values = np.asarray(probabilities, np.float64)
    if score == "lac":
        return 1 - values
    order = np.argsort(-values, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(values, order, axis=1), axis=1)
    found = np.empty_like(values)
    np.put_along_axis(found, order, sums, axis=1)
    return found
