"""Near-duplicates: the same file, or the same picture with other pixels, by digests, perceptual hashes and features.

Which of them leak across splits or contradict each other is said here; what is done about it is the reader's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BLOCK = 2048  # rows of which all pairs are in memory at a time
_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DuplicateThresholds:
    """When two images are near duplicates: both witnesses have to agree.

    Attributes:
        hash_distance: At most so many of the 64 bits of the hashes differ.
        similarity: The cosine of the centred features is at least this.
    """

    hash_distance: int = 10
    similarity: float = 0.9


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows that show the same.

    Attributes:
        first: Row numbers (P,), each below its partner.
        second: Row numbers (P,).
        similarity: Cosine of the features (P,).
        exact: Whether the content is the same (P,).
    """

    first: _Rows
    second: _Rows
    similarity: npt.NDArray[np.float64]
    exact: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.first)


@dataclass(frozen=True)
class Duplicates:
    """What follows from the pairs.

    Attributes:
        pairs: All of them.
        group: Number of each image's group (N,), 0 for none; pairs that share an image are one group.
        leaking: Whether an image of val or test has a duplicate in a split that is used before its own (N,).
        conflicting: Whether an image has a duplicate of another label (N,).
    """

    pairs: Pairs
    group: _Rows
    leaking: npt.NDArray[np.bool_]
    conflicting: npt.NDArray[np.bool_]


def find_pairs(
    digests: Sequence[str],
    bits: npt.NDArray[np.uint8],
    features: npt.NDArray[np.float32],
    thresholds: DuplicateThresholds,
) -> Pairs:
    """Return all pairs of images that show the same.

    Args:
        digests: Of each image's content (N,).
        bits: Perceptual hashes (N, 64) of 0 and 1.
        features: Of each image (N, F).
        thresholds: How alike near duplicates are.
    """
    number = len(digests)
    codes = np.unique(np.asarray(digests, dtype=object), return_inverse=True)[1]
    signs = bits.astype(np.float32) * 2 - 1
    directions = _normalised(features)
    found = []
    for start in range(0, number, BLOCK):
        stop = min(start + BLOCK, number)
        distance = (bits.shape[1] - signs[start:stop] @ signs.T) / 2
        same = codes[start:stop, None] == codes[None]
        later = np.arange(number)[None] > np.arange(start, stop)[:, None]
        one, other = np.nonzero(later & (same | (distance <= thresholds.hash_distance)))
        exact = same[one, other]
        one = one + start
        alike = np.einsum("pf,pf->p", directions[one], directions[other]).astype(np.float64)
        kept = exact | (alike >= thresholds.similarity)
        found.append((one[kept], other[kept], np.where(exact, 1.0, alike)[kept], exact[kept]))
    columns = [np.concatenate(part) for part in zip(*found, strict=True)] if found else [np.zeros(0)] * 4
    first, second = (column.astype(np.int64) for column in columns[:2])
    return Pairs(first, second, columns[2].astype(np.float64), columns[3].astype(bool))


def _normalised(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the features as unit vectors from their mean; what all images share says nothing of two."""
    centred = features - features.mean(axis=0, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(length, 1e-12), np.float32)


def group_duplicates(pairs: Pairs, splits: Sequence[str | None], labels: Sequence[tuple[str, ...]]) -> Duplicates:
    """Return the groups of images that show the same, which leak, and which contradict each other.

    Args:
        pairs: Of row numbers.
        splits: Of each image (N,).
        labels: Of each image (N,).
    """
    number = len(splits)
    order = {"train": 0, "val": 1, "test": 2}
    ranks = np.array([order.get(str(split), 0) for split in splits])
    leaking, conflicting = np.zeros(number, bool), np.zeros(number, bool)
    for one, other in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        if ranks[one] != ranks[other]:
            leaking[one if ranks[one] > ranks[other] else other] = True
        if set(labels[one]) != set(labels[other]):
            conflicting[[one, other]] = True
    return Duplicates(pairs, duplicate_groups(pairs, number), leaking, conflicting)


def duplicate_groups(pairs: Pairs, number: int) -> _Rows:
    """Return the number of each image's group (N,), from 1 in the order of their first images; 0 for none."""
    parts = connected_components(pairs.first, pairs.second, number)
    sizes = np.bincount(parts, minlength=1)
    numbers: dict[int, int] = {}
    return np.array(
        [numbers.setdefault(part, len(numbers) + 1) if sizes[part] > 1 else 0 for part in parts.tolist()], np.int64
    )


def connected_components(first: _Rows, second: _Rows, number: int) -> _Rows:
    """Return a number for the part of each of `number` rows (N,), of which linked ones are in one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(number, number))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
