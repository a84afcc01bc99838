"""Similar images: the training images nearest by the angle between features."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SimilarImages:
    """The nearest of M known images, for each of N images.

    Attributes:
        rows: Row numbers among the known (N, k), the nearest first.
        similarity: Cosine of the features (N, k).
    """

    rows: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float64]


def most_similar(known: _Features, asked: _Features, number: int) -> SimilarImages:
    """Return the nearest known images of each image.

    Args:
        known: Features (M, F).
        asked: Features (N, F).
        number: How many, at most M.
    """
    number = min(number, len(known))
    one, other = _unit(asked), _unit(known)
    similarity = one @ other.T
    rows = np.argsort(-similarity, axis=1, kind="stable")[:, :number]
    return SimilarImages(rows.astype(np.int64), np.take_along_axis(similarity, rows, axis=1).astype(np.float64))


def _unit(features: _Features) -> _Features:
    """Return features as unit vectors."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(length, 1e-12), np.float32)
