"""Image files in batches, for prediction on images that nobody has labelled."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from finetune.config.settings.training_groups import Augment
from finetune.data.augmentation.settings import NOT_AUGMENTED
from finetune.data.datamodule import seed_of, seeded, view_keys
from finetune.data.decoding import unreadable_reason
from finetune.data.image_stores import FileStore
from finetune.data.sources import image_suffixes
from finetune.data.sources.file_kinds import found_instead, is_hidden
from finetune.data.table import content_digest
from finetune.data.transforms import InputSpec, eval_transform, train_transform
from finetune.errors import ConfigError, DataError, nearest

Item = tuple[str, Tensor | None, str | None]


class Read(NamedTuple):
    """Files that were read together.

    Attributes:
        paths: Of all (N).
        images: (B, V, C, H, W), those that can be read in all their views; None where none can.
        errors: What is wrong with each (N), or None.
        frames: Of sequences, how many of the images each has; None for single images.
    """

    paths: list[str]
    images: Tensor | None
    errors: list[str | None]
    frames: Tensor | None = None


def find_images(source: Path, key: str = "input") -> list[str]:
    """List the image files under a folder, nested ones too, in a fixed order; or the one file.

    Hidden files and folders are left out, and files whose ending no image format has. Messages name the setting `key`.

    Raises:
        ConfigError: There is no such file or folder.
        DataError: The folder holds no image.
    """
    if source.is_file():
        return [str(source)]
    if not source.is_dir():
        siblings = [entry.name for entry in source.parent.iterdir()] if source.parent.is_dir() else []
        raise ConfigError(f"{key}={source} is neither a file nor a folder.{nearest(source.name, siblings)}")
    endings = image_suffixes()
    found = []
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not is_hidden(name, within_class=True))
        shown = sorted(name for name in names if not is_hidden(name))
        found += [str(Path(folder, name)) for name in shown if Path(name).suffix.lower() in endings]
    if not found:
        raise DataError(
            f"There is no image under {source} (.jpg, .png, .webp, .tif …). Point {key}= at images. "
            f"{found_instead(source)}"
        )
    return found


class ImageFiles(Dataset[Item]):
    """Files as (path, image in all its views (V, C, H, W) or None, what is wrong with it or None)."""

    def __init__(self, paths: Sequence[str], spec: InputSpec, augment: Augment | None = None, views: int = 1) -> None:
        """Read the paths and bring the images to the input that the spec describes.

        All views but the first are augmented, as a run's test images are.
        """
        self.paths, self.channels, self.transform = paths, spec.channels, eval_transform(spec)
        self.varied = train_transform(spec, augment or NOT_AUGMENTED)
        self.views = views
        self.store = FileStore(spec.value_range)

    def __len__(self) -> int:
        """How many files there are."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        """Read one file; what cannot be read is said, not replaced."""
        path = self.paths[index]
        try:
            return path, torch.stack(list(self.seen(path))), None
        except DataError as error:
            return path, None, unreadable_reason(error.__cause__ or error)

    def seen(self, path: str) -> Iterator[Tensor]:
        """Yield the views (C, H, W) of an image.

        Raises:
            DataError: The image cannot be read.
        """
        store = self.store
        yield self.transform.apply(store.open(path, self.channels))
        content = content_digest(store.content(path)) if self.views > 1 else ""
        for view in range(1, self.views):
            with seeded(seed_of(view_keys([content], view)[0])):
                yield self.varied.apply(store.open(path, self.channels))

    def together(self, batch_size: int) -> int:
        """Return how many files are read at once."""
        return batch_size

    @staticmethod
    def collate(samples: Sequence[Item]) -> Read:
        """Return files that were read together."""
        paths, tensors, errors = zip(*samples, strict=True)
        held = [tensor for tensor in tensors if tensor is not None]
        return Read(list(paths), torch.stack(held) if held else None, list(errors))


def read_batches(images: ImageFiles, *, batch_size: int, workers: int) -> Iterable[Read]:
    """Yield what can be read, one batch after the other."""
    return DataLoader(images, batch_size=batch_size, num_workers=workers, collate_fn=images.collate, shuffle=False)
