"""Batches of sequences: the frames of all of them as one batch of images, and how many each sequence has.

All frames of a sequence are varied in the same way; order and ranks are as for images.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from finetune.data.datamodule import ImageBatch, ImageData, ImageRows, collate, seeded, start_worker
from finetune.data.pixel_cache import StoredImages
from finetune.data.sampling import Draw
from finetune.data.sequences.frame_store import SequenceStore, frame_table, sequence_limit
from finetune.data.table import ImageTable
from finetune.data.transforms import Transform
from finetune.errors import ConfigError

# settings of images that are not for sequences
OF_IMAGES = ("pixel_cache", "device_pixels")


class Sequences(ImageRows):
    """Sequences of a table, addressed by draws; all frames of one are varied by the draw's seed in the same way."""

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """Return images (T, C, H, W), target, row and valid of a draw.

        Raises:
            DataError: A frame cannot be read; another is never put in its place.
        """
        store, transform = self.store, self.transform
        assert isinstance(store, SequenceStore) and isinstance(transform, Transform)
        frames = []
        for path in store.frames[self.paths[draw.row]]:
            with seeded(draw.seed) if self.random else nullcontext():
                frames.append(transform.apply(store.images.open(path, self.channels)))
        images = torch.stack(frames)
        return {"image": images, "target": self.targets[draw.row], "row": draw.row, "valid": draw.valid}


def collate_sequences(items: list[dict[str, Any]]) -> ImageBatch:
    """Return a batch: image (N, C, H, W) of all frames, frames (B,) of each sequence, target, row, valid (B,)."""
    return collate(items, join=torch.cat) | {"frames": torch.tensor([len(item["image"]) for item in items])}


class SequenceData(ImageData):
    """The loaders of a table of sequences; batch sizes are of sequences in training, and of frames elsewhere.

    Attributes:
        frames: The loaders of all frames, each an image by itself.
        starts: Rows (N + 1,) of these at which sequences begin and end.
    """

    def __init__(self, table: ImageTable, *args: Any, eval_batch_size: int = 64, **options: Any) -> None:
        """Serve batches; arguments as for `ImageData`.

        Raises:
            ConfigError: As for `ImageData`, or pixels are to be kept or made on a device.
        """
        for name in OF_IMAGES:
            if options.get(name):
                raise ConfigError(f"data.{name}=true is for single images, and these are sequences. Set it to false.")
        store = table.store
        assert isinstance(store, SequenceStore)
        super().__init__(table, *args, eval_batch_size=max(1, eval_batch_size // store.limit), **options)
        images, self.starts = frame_table(table)
        self.frames = ImageData(images, *args, eval_batch_size=eval_batch_size, **options)

    def frames_of(self, rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        """Return the rows of the frames of some sequences."""
        return [np.arange(self.starts[row], self.starts[row + 1], dtype=np.int64) for row in rows.tolist()]

    def view_loader(self, split: str, view: int, *, rank: int = 0, world_size: int = 1) -> "DataLoader[ImageBatch]":
        """Return the sequences of a split in order, each once, as evaluation sees them.

        Raises:
            DataError: The split has no sequences.
            ConfigError: Another view is asked for.
        """
        check_sequence_views(view + 1, "views")
        return super().view_loader(split, view, rank=rank, world_size=world_size)

    def draws(
        self, batches: Iterable[list[Draw]], *, augmented: bool, stored: StoredImages | None = None
    ) -> "DataLoader[ImageBatch]":
        """Return batches of the sequences of given draws."""
        transform = self.train_transform if augmented else self.eval_transform
        sequences = Sequences(self.table, transform, self.spec.channels, random=augmented and self.augmented)
        return DataLoader(
            sequences,
            batch_sampler=batches,
            collate_fn=collate_sequences,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=start_worker,
            generator=torch.Generator(),
        )


def build_datamodule(table: ImageTable) -> type[ImageData]:
    """Return what serves batches of a table: of its images, or of its sequences."""
    return ImageData if sequence_limit(table) is None else SequenceData


def check_sequence_views(views: int, setting: str) -> None:
    """Check that sequences are looked at as they are.

    Args:
        views: Of each sequence.
        setting: Says so.

    Raises:
        ConfigError: There are several.
    """
    if views > 1:
        raise ConfigError(f"{setting}={views} is for single images: sequences have one view. Set {setting}=1.")
