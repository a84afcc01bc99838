"""Cached features as they are served: of images in one or several views, and of sequences of frames."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finetune.data.cache.shards import Entries
from finetune.models.heads.sequence_heads import mean_of, pad

VALUES = "values"


class CachedFeatures:
    """Features of rows of a table, in one or several views each, in memory or mapped from disk."""

    def __init__(self, rows: npt.NDArray[np.int64], keys: Sequence[Sequence[str]], entries: Sequence[Entries]) -> None:
        """Find the entries.

        Args:
            rows: Row numbers (N,).
            keys: Of each view, the keys of the rows (V, N).
            entries: Where the keys of each view are (V).
        """
        self.rows = rows
        self.keys = keys
        self.entries = entries
        self.places = [found.places(list(names)) for found, names in zip(entries, keys, strict=True)]
        self.position = np.full(int(rows.max(initial=-1)) + 1, -1, dtype=np.int64)
        self.position[rows] = np.arange(len(rows))

    @property
    def views(self) -> int:
        """The number of views of each row."""
        return len(self.places)

    def pooled(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return one vector for each of some rows (B, F), in the first view."""
        return self.take(rows)

    def renumbered(self, rows: npt.NDArray[np.int64], known: Sequence[int], views: int) -> "CachedFeatures":
        """Return the features in some views of the images that are known by some rows (N), under other rows (N,)."""
        index = self.position[list(known)].tolist()
        return CachedFeatures(
            rows, [[names[place] for place in index] for names in self.keys[:views]], self.entries[:views]
        )

    def take(self, rows: npt.NDArray[np.int64], views: npt.NDArray[np.int64] | None = None) -> Tensor:
        """Return the features (B, F), float32, of rows (B,), each in its view (B,) or all in the first."""
        index = self.position[rows]
        if views is None or self.views == 1:
            return torch.from_numpy(self.entries[0].take(VALUES, self.places[0][index]).astype(np.float32, copy=False))
        found: Tensor | None = None
        for view in np.unique(views):
            inside = np.flatnonzero(views == view)
            values = self.entries[view].take(VALUES, self.places[view][index[inside]]).astype(np.float32, copy=False)
            found = torch.empty(len(rows), *values.shape[1:]) if found is None else found
            found[torch.from_numpy(inside)] = torch.from_numpy(values)
        assert found is not None
        return found


class SequenceFeatures(CachedFeatures):
    """Features of the frames of some sequences, taken as padded sequences; there is one view of each."""

    def __init__(
        self, rows: npt.NDArray[np.int64], members: list[npt.NDArray[np.int64]], frames: CachedFeatures
    ) -> None:
        """Take rows of sequences (N,), the rows of the frames of each (N), and the features of all these frames."""
        self.rows = rows
        self.frames = frames
        self.members = dict(zip(rows.tolist(), members, strict=True))

    @property
    def views(self) -> int:
        """The number of views of each sequence."""
        return 1

    def take(self, rows: npt.NDArray[np.int64], views: npt.NDArray[np.int64] | None = None) -> Tensor:
        """Return padded sequences (B, T, 1 + F), float32, of rows (B,); T is the length of the longest of them."""
        chosen = [self.members[row] for row in rows.tolist()]
        return pad(self.frames.take(np.concatenate(chosen)), torch.tensor([len(frames) for frames in chosen]))

    def renumbered(self, rows: npt.NDArray[np.int64], known: Sequence[int], views: int) -> "SequenceFeatures":
        """Return the features of the sequences that are known by some rows (N) under other rows (N,)."""
        return SequenceFeatures(rows, [self.members[row] for row in known], self.frames)

    def pooled(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return the mean features (B, F) of the frames of each of some sequences."""
        return mean_of(self.take(rows))
