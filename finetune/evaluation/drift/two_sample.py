"""Two-sample tests of features, classes and confidences: distances, and how often chance alone makes them as large."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.floating]
_Counts = npt.NDArray[np.int64]

PERMUTATIONS = 999
_CHUNK = 64
_LEVEL = 0.05
_TOLERANCE = 1e-6  # of draws that equal the observed one but for rounding


@dataclass(frozen=True)
class Shift:
    """How far apart two samples are.

    Attributes:
        distance: 0 for the same to 1 for nothing in common.
        chance: What chance alone exceeds in one of twenty pairs of samples of these sizes and one origin.
        p: How often chance alone gives such a distance.
    """

    distance: float
    chance: float
    p: float


def feature_shift(reference: _Floats, new: _Floats, *, permutations: int = PERMUTATIONS, seed: int = 0) -> Shift:
    """Compare features (N, F) and (M, F) by their energy distance, as a share of the mean distance between the two.

    The distance is without bias, so that those of many and of few images can be compared; one below 0 is told as 0.
    p comes from exchanging the images between the samples, so that it is exact whatever the features are like.

    Source: Szekely and Rizzo 2013, Energy statistics: a class of statistics based on distances, sections 3 and 6;
    Rabanser, Guennemann and Lipton 2019, Failing Loudly, for two-sample tests on features of a network.
    """
    distances = pairwise_distances(np.concatenate([reference, new]))
    count, total = len(new), len(distances)
    sums = distances.sum(axis=1, dtype=np.float64)
    observed = energy_coefficients(distances, sums, subset_membership(np.arange(total - count, total)[None], total))
    generator = np.random.default_rng(seed)
    draws = [
        energy_coefficients(distances, sums, subset_membership(drawn, total))
        for drawn in random_subsets(total, count, permutations, generator)
    ]
    return permutation_shift(float(observed[0]), np.concatenate(draws))


def pairwise_distances(points: _Floats) -> npt.NDArray[np.float32]:
    """Return the Euclidean distances (N, N) of points (N, F)."""
    centred = (points - points.mean(axis=0)).astype(np.float32)
    squares = np.square(centred).sum(axis=1)
    found = squares[:, None] + squares - 2 * (centred @ centred.T)
    np.fill_diagonal(found, 0)
    np.sqrt(np.maximum(found, 0, out=found), out=found)
    return np.asarray(found)


def random_subsets(total: int, count: int, number: int, generator: np.random.Generator) -> Iterator[_Counts]:
    """Yield random subsets of `count` of `total` places, some (B, count) at a time."""
    for start in range(0, number, _CHUNK):
        width = min(_CHUNK, number - start)
        places = np.broadcast_to(np.arange(total), (width, total))
        yield generator.permuted(places, axis=1)[:, :count]


def subset_membership(places: _Counts, total: int) -> npt.NDArray[np.float32]:
    """Return who belongs to each of B subsets as (total, B) of 0 and 1."""
    found = np.zeros((total, len(places)), np.float32)
    found[places.T, np.arange(len(places))] = 1
    return found


def energy_coefficients(distances: npt.NDArray[np.float32], sums: _Floats, inside: npt.NDArray[np.float32]) -> _Floats:
    """Return the energy distance between each of B subsets and the rest, over twice the mean distance between them.

    Args:
        distances: (N, N), of all points.
        sums: (N,), of each point to all.
        inside: (N, B), who belongs to which subset.
    """
    within = np.einsum("nb,nb->b", distances @ inside, inside, dtype=np.float64)
    between = sums @ inside - within
    rest = sums.sum() - 2 * between - within
    count = inside.sum(axis=0, dtype=np.float64)
    others = len(distances) - count
    cross = 2 * between / (count * others)
    energy = cross - within / np.maximum(count * (count - 1), 1) - rest / np.maximum(others * (others - 1), 1)
    return np.asarray(np.divide(energy, cross, out=np.zeros_like(cross), where=cross > 0))


def class_shift(before: _Counts, now: _Counts, *, permutations: int = PERMUTATIONS, seed: int = 0) -> Shift:
    """Compare how often each of K classes is predicted by the Jensen-Shannon distance, from the counts (K,) and (K,).

    p comes from exchanging the images between the samples.

    Source: Lin 1991, Divergence measures based on the Shannon entropy, section 4 (base 2, so that it is at most 1).
    """
    total = before + now
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(
        total, int(now.sum()), size=permutations, method="marginals"
    )
    observed = jensen_shannon(before / before.sum(), now / now.sum())
    return permutation_shift(float(observed), jensen_shannon((total - drawn) / before.sum(), drawn / now.sum()))


def label_shift(before: _Counts, now: _Counts, *, permutations: int = PERMUTATIONS, seed: int = 0) -> Shift:
    """Compare how often each of K labels is predicted, from decisions (N, K) and (M, K) of 0 and 1.

    The distance is the root of the mean Jensen-Shannon divergence of the labels, each of which is there or not.
    """
    decisions = np.concatenate([before, now]).astype(np.float32)
    count, total = len(now), len(decisions)
    sums = decisions.sum(axis=0, dtype=np.float64)
    generator = np.random.default_rng(seed)
    drawn = np.concatenate([
        np.einsum("nk,nb->bk", decisions, subset_membership(places, total), optimize=True)
        for places in random_subsets(total, count, permutations, generator)
    ])  # fmt: skip

    def distance(inside: _Floats) -> _Floats:
        first, second = (sums - inside) / (total - count), inside / count
        parts = jensen_shannon(np.stack([first, 1 - first], -1), np.stack([second, 1 - second], -1))
        return np.asarray(np.sqrt(np.square(parts).mean(axis=-1)))

    return permutation_shift(float(distance(now.sum(axis=0, dtype=np.float64))), distance(drawn.astype(np.float64)))


def jensen_shannon(first: _Floats, second: _Floats) -> _Floats:
    """Return the Jensen-Shannon distances, in base 2, of distributions (..., K).

    SciPy's own is NaN where rounding makes the divergence of two like distributions less than 0.
    """
    from scipy.special import entr

    parts = entr((first + second) / 2) - (entr(first) + entr(second)) / 2
    return np.asarray(np.sqrt(np.clip(parts.sum(axis=-1) / math.log(2), 0, 1)))


def confidence_shift(before: _Floats, now: _Floats) -> Shift:
    """Compare confidences (N,) and (M,) by the Kolmogorov-Smirnov statistic.

    Source: Smirnov 1948, Table for estimating the goodness of fit of empirical distributions.
    """
    from scipy.stats import ks_2samp

    found = ks_2samp(before, now)
    critical = math.sqrt(-math.log(_LEVEL / 2) / 2 * (1 / len(before) + 1 / len(now)))
    return Shift(float(found.statistic), min(critical, 1.0), float(found.pvalue))


def permutation_shift(observed: float, draws: _Floats) -> Shift:
    """Return a distance with its test against those that chance has drawn.

    The observed one counts as a draw, so that p is never 0 and never too small.

    Source: Phipson and Smyth 2010, Permutation P-values should never be zero, section 3.
    """
    reached = int((draws >= observed - _TOLERANCE * abs(observed)).sum())
    chance = float(np.quantile(draws, 1 - _LEVEL))
    return Shift(max(observed, 0.0), max(chance, 0.0), (reached + 1) / (len(draws) + 1))
