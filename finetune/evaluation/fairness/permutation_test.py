"""Permutation test: whether groups differ more than chance makes them."""

import numpy as np

from finetune.evaluation.predictions import Predictions


def correctness(predictions: Predictions) -> np.ndarray:
    """Return for each image (N,) whether it is right or, with several labels, the share of its decisions that is."""
    right = predictions.targets == predictions.predicted
    return np.asarray(right.mean(axis=1) if predictions.multilabel else right, dtype=np.float64)


def permutation_p_value(values: np.ndarray, groups: np.ndarray, *, draws: int, seed: int) -> float:
    """Return how often chance alone spreads the groups' means as far apart as they are, in (0, 1].

    The spread is the variance between groups, weighted by their sizes; it takes account of how many groups there are,
    as the interval of the two furthest apart does not.

    Args:
        values: Of each image (N,).
        groups: Number of each image's group (N,), from 0.
        draws: How often images are dealt out anew.
        seed: Of the draws.

    Source: Phipson and Smyth 2010, Permutation p-values should never be zero, section 4.
    """
    generator = np.random.default_rng(seed)
    sizes = np.bincount(groups)
    centred = values - values.mean()

    def spread(dealt: np.ndarray) -> float:
        return float((np.bincount(groups, weights=dealt) ** 2 / sizes).sum())

    least = spread(centred) * (1 - 1e-9)
    above = sum(spread(generator.permutation(centred)) >= least for _ in range(draws))
    return (1 + above) / (1 + draws)
