"""Sequences of frames to predict on: folders in, a row of the table each out."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from finetune.config.settings.training_groups import Augment
from finetune.data.decoding import unreadable_reason
from finetune.data.sequences.batches import check_sequence_views
from finetune.data.sources.frames import frames_in, sequence_folders
from finetune.errors import ConfigError, DataError
from finetune.evaluation.image_files import ImageFiles, Item, Read, find_images
from finetune.models.network import Network


class SequenceFolders(ImageFiles):
    """Folders as (path, frames (T, C, H, W) that are looked at or None, what is wrong with one of them or None)."""

    def __init__(self, source: Path, network: Network) -> None:
        """Find the sequences at or below a folder, for a network of sequences.

        Raises:
            ConfigError: There is no such folder.
            DataError: It holds no image.
        """
        if source.is_file():
            raise ConfigError(
                f"input={source} is a file, and this run reads sequences of frames. Name a folder of frames, or one of "
                "such folders."
            )
        find_images(source)  # or says that there are none
        assert network.frames is not None
        self.folders = {str(place): frames_in(place, network.frames) for place in sequence_folders(source)}
        self.longest = network.frames
        super().__init__(list(self.folders), network.spec)

    def __getitem__(self, index: int) -> Item:
        """Read one sequence; a frame that cannot be read is said, not replaced."""
        path, frames = self.paths[index], []
        for frame in self.folders[path]:
            try:
                frames.append(self.transform.apply(self.store.open(frame, self.channels)))
            except DataError as error:
                return path, None, f"its frame {Path(frame).name}: {unreadable_reason(error.__cause__ or error)}"
        return path, torch.stack(frames), None

    def together(self, batch_size: int) -> int:
        """Return how many sequences are read at once, so that their frames are at most the images of a batch."""
        return max(1, batch_size // self.longest)

    @staticmethod
    def collate(samples: Sequence[Item]) -> Read:
        """Return sequences that were read together: the frames of all as (N, 1, C, H, W), and how many each has."""
        paths, tensors, errors = zip(*samples, strict=True)
        held: list[Tensor] = [tensor for tensor in tensors if tensor is not None]
        images = torch.cat(held)[:, None] if held else None
        return Read(list(paths), images, list(errors), torch.tensor([len(tensor) for tensor in held]))


def files_of(source: Path, network: Network, augment: Augment, views: int) -> ImageFiles:
    """Return what a network is to label: the images at or below a place, or the sequences.

    Raises:
        ConfigError: There is nothing there, or several views of sequences are asked for.
        DataError: The folder holds no image.
    """
    if network.frames is None:
        return ImageFiles(find_images(source), network.spec, augment, views)
    check_sequence_views(views, "views")
    return SequenceFolders(source, network)
