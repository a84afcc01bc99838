"""Features of sequences: those of their frames, put together in order."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finetune.data.datamodule import ImageData
from finetune.data.sequences.batches import SequenceData, check_sequence_views
from finetune.features.extract import CachedFeatures, FeatureSettings, FeatureSource
from finetune.models.heads.sequence_heads import mean_of, pad
from finetune.models.network import Network
from finetune.runtime.device import DevicePass


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

    def renumbered(self, rows: npt.NDArray[np.int64], known: Sequence[int]) -> "SequenceFeatures":
        """Return the features of the sequences that are known by some rows (N) under other rows (N,)."""
        return SequenceFeatures(rows, [self.members[row] for row in known], self.frames)

    def pooled(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return the mean features (B, F) of the frames of each of some sequences."""
        return mean_of(self.take(rows))


class SequenceSource(FeatureSource):
    """Makes the features of a table's sequences from those of their frames."""

    def __init__(
        self, network: Network, sequences: SequenceData, settings: FeatureSettings, device_pass: DevicePass
    ) -> None:
        """Use the network as it is now, as `FeatureSource` does."""
        super().__init__(network, sequences.frames, settings, device_pass)
        self.sequences = sequences

    def features(self, rows: npt.NDArray[np.int64], views: int = 1) -> CachedFeatures:
        """Return the features of some sequences; frames that are missing are computed, each rank its share.

        Raises:
            ConfigError: They do not fit into the cache, or several views are asked for.
            RunError: They cannot be kept as asked.
        """
        check_sequence_views(views, "features.views")
        members = self.sequences.frames_of(rows)
        return SequenceFeatures(rows, members, super().features(np.concatenate(members)))

    def count(self, rows: npt.NDArray[np.int64]) -> int:
        """Return how many frames are passed through the backbone for some sequences, where none is known."""
        return sum(len(frames) for frames in self.sequences.frames_of(rows))


def feature_source(
    network: Network, images: ImageData, settings: FeatureSettings, device_pass: DevicePass
) -> FeatureSource:
    """Return what makes the pooled features of images, or of the frames of sequences."""
    if isinstance(images, SequenceData):
        return SequenceSource(network, images, settings, device_pass)
    return FeatureSource(network, images, settings, device_pass)
