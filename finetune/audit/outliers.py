"""Outliers: images unlike the others in size, mode or content, by robust statistics of the set itself.

What is usual differs from set to set, hence no fixed bounds.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune.audit.image_stats import ImageStats

# robust standard deviations from the median
FAR_SIZE, FAR_FEATURES = 6.0, 5.0
_USUAL = 0.9  # share of images from which on a mode is what is usual
TINY, BLANK, LONG = 16, 2.0, 5.0
NEIGHBOURS = 5
_SPREAD = 0.02  # least robust standard deviation, in logarithms, so that a set of one size is not all outliers


def file_anomalies(facts: Sequence[ImageStats]) -> list[str]:
    """Return what is odd about each image's file (N,); nothing for most.

    Sizes are compared by the logarithm of their pixels, and modes with the one that nearly all images have.
    """
    pixels = np.log([fact.width * fact.height for fact in facts])
    far = np.abs(robust_z_scores(pixels, _SPREAD)) > FAR_SIZE
    modes = Counter(fact.mode for fact in facts)
    usual, count = modes.most_common(1)[0]
    strict = count >= _USUAL * len(facts)
    return [
        "; ".join(describe_anomaly(fact, bool(out), usual if strict else None))
        for fact, out in zip(facts, far, strict=True)
    ]


def describe_anomaly(fact: ImageStats, far: bool, usual: str | None) -> list[str]:
    """Return what is odd about an image's file, in words."""
    long, short = max(fact.width, fact.height), min(fact.width, fact.height)
    odd = {
        f"size {fact.width} x {fact.height} unlike the others": far,
        "tiny": short < TINY and far,
        f"sides {long} to {short}": long > LONG * short,
        f"{fact.frames} frames, of which the first is used": fact.frames > 1,
        f"mode {fact.mode} among {usual}": usual is not None and fact.mode != usual,
        "shows nothing: all pixels are alike": fact.contrast < BLANK,
    }
    return [words for words, holds in odd.items() if holds]


def outlier_scores(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return how far each image (N,) is from its nearest others, in robust standard deviations of that distance.

    The distance is the mean over the nearest five of that between standardised features, which notices what one image
    alone has, and is compared on a logarithmic scale.
    Source: Ramaswamy et al. 2000, Efficient algorithms for mining outliers from large data sets, section 2.
    """
    from sklearn.neighbors import NearestNeighbors

    if len(features) < NEIGHBOURS + 2:
        return np.zeros(len(features))
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 1e-6, spread, 1)
    near = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, algorithm="brute").fit(scaled)
    distances = near.kneighbors(scaled)[0][:, 1:].mean(axis=1)
    return robust_z_scores(np.log(np.maximum(distances, 1e-6)), _SPREAD)


def robust_z_scores(values: npt.NDArray[np.float64], least: float) -> npt.NDArray[np.float64]:
    """Return values (N,) as multiples of their robust standard deviation from their median.

    Source: Rousseeuw and Croux 1993, Alternatives to the median absolute deviation, section 1.
    """
    median = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - median))
    return np.asarray((values - median) / max(float(spread), least))
