"""McNemar's test: whether a difference in right and wrong could be chance, and which difference could be seen."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class McNemar:
    """A paired test of right and wrong.

    Attributes:
        lost: Images that the first had right and the second has wrong.
        won: Images that the second has right and the first had wrong.
        both: Right in both.
        neither: Wrong in both.
        p: Probability of so uneven a count, or a more uneven one, if neither is better.
    """

    lost: int
    won: int
    both: int
    neither: int
    p: float


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> McNemar:
    """Return McNemar's exact test of right (N,) and right (N,).

    Of the images on which the two differ, each would be as likely to have won; without any, p is 1.
    Source: McNemar 1947, Note on the sampling error of the difference between correlated proportions; the exact form is
    the binomial test on the discordant pairs.
    """
    from scipy.stats import binomtest

    lost, won = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return McNemar(lost, won, int((first & second).sum()), int((~first & ~second).sum()), p)


def detectable_difference(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """Return the least difference in accuracy that so many images would show, at the 5 % level, with 80 % power.

    As many images are taken to differ between the runs as do here; with fewer than one in a hundred, one in a hundred.
    Source: Connor 1987, Sample size for testing differences in proportions for the paired-sample design, equation 1,
    without the small term of the difference itself.
    """
    from scipy.stats import norm

    number = len(first)
    discordant = max(float((first != second).mean()), 0.01)
    return min(1.0, float(norm.ppf(0.975) + norm.ppf(0.8)) * math.sqrt(discordant / number))
