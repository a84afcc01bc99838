"""Data module: batches of images for training and evaluation, the same whatever the number of workers or ranks."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from finetune.config.settings.training_groups import Augment
from finetune.data.cache.shards import key_of
from finetune.data.gpu.params import ParamsSource, check_device_pixels
from finetune.data.gpu.transform import FORMAT, DeviceTransform
from finetune.data.pixel_cache import PixelCache, StoredImages
from finetune.data.resampling import Balance
from finetune.data.sampling import Draw, EvalBatches, TrainBatches
from finetune.data.table import ImageTable, content_digest, with_value_range
from finetune.data.transforms import InputSpec, Transform, eval_transform, train_transform
from finetune.errors import ConfigError, DataError
from finetune.runtime.device import cores
from finetune.runtime.signals import ignore_signals

ImageBatch = dict[str, Tensor]
# what an augmentation does to batches, not to an image
OF_BATCHES = ("mixup", "cutmix")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of Python, NumPy and torch, and put them back as they were."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.random.default_generator.manual_seed(seed)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


class ImageRows(Dataset[dict[str, Any]]):
    """Images of a table, addressed by draws; each draw's augmentation depends on its seed alone."""

    def __init__(
        self,
        table: ImageTable,
        transform: Transform | DeviceTransform,
        channels: int,
        *,
        random: bool,
        stored: StoredImages | None = None,
        repeated: Transform | DeviceTransform | None = None,
    ) -> None:
        """Read images of `table` with `channels` and apply `transform`, under the draw's seed where it is random.

        Pixels that are stored are taken from there. Draws that are repeats get a transform of their own, if given.
        """
        self.paths = table.frame["path"].tolist()
        self.digests = table.frame["digest"].tolist()
        self.stored = stored
        self.store = table.store
        self.targets = table.targets()
        self.transform = transform
        self.repeated = transform if repeated is None else repeated
        self.channels = channels
        self.random = random

    def __len__(self) -> int:
        """Return the number of images of the table."""
        return len(self.paths)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """Return image (C, H, W) or what it is made of, target, row and valid of a draw.

        Raises:
            DataError: The image cannot be read; another is never put in its place.
        """
        with seeded(draw.seed) if self.random else nullcontext():
            image = self.image(draw.row, self.repeated if draw.repeat else self.transform)
        return {"image": image, "target": self.targets[draw.row], "row": draw.row, "valid": draw.valid}

    def __getitems__(self, draws: list[Draw]) -> list[dict[str, Any]]:
        """Return several draws, read by all cores at once unless other processes do so or draws are random.

        What is random draws from generators that threads share.
        """
        if self.random or get_worker_info() is not None or len(draws) < 2:
            return [self[draw] for draw in draws]
        Image.init()  # its table of formats is not made for several threads at once
        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(self.__getitem__, draws))

    def image(self, row: int, transform: Transform | DeviceTransform) -> Tensor | ParamsSource:
        """Return the image of a row as a transform makes it, varied where that is random."""
        if self.stored is not None and isinstance(transform, Transform):
            return transform.tensor(self.stored.pixels(self.digests[row], transform))
        return transform.apply(self.store.open(self.paths[row], self.channels))


def view_keys(digests: Sequence[str], view: int) -> list[str]:
    """Return what identifies a view of images (N): an augmented view is a function of the image's content alone."""
    return list(digests) if view == 0 else [key_of(digest, view) for digest in digests]


def seed_of(key: str) -> int:
    """Return the seed of the augmentation of a view."""
    return int(key[:8], 16)


def collate(items: list[dict[str, Any]], *, join: Callable[[list[Any]], Any]) -> ImageBatch:
    """Return a batch: image (B, C, H, W) as joined, target (B,) or (B, K), row (B,), valid (B,)."""
    return {
        "image": join([item["image"] for item in items]),
        "target": torch.from_numpy(np.stack([item["target"] for item in items])),
        "row": torch.tensor([item["row"] for item in items]),
        "valid": torch.tensor([item["valid"] for item in items]),
    }


def start_worker(worker: int) -> None:
    """Leave the cores to the other workers, and the end of the run to the process that trains."""
    torch.set_num_threads(1)
    ignore_signals()


class ImageData(pl.LightningDataModule):
    """The loaders of a table's splits.

    Attributes:
        first_epoch: The epoch whose batches a training begins with. Lightning makes the loaders, and workers read
            ahead, before it knows the epoch at which a run goes on.
    """

    def __init__(
        self,
        table: ImageTable,
        spec: InputSpec,
        augment: Augment,
        *,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
        balance: Balance | None = None,
        repeats: "ImageData | None" = None,
        pixel_cache: PixelCache | None = None,
        device_pixels: bool = False,
    ) -> None:
        """Serve batches.

        Args:
            table: The images, all in a split.
            spec: What the weights expect.
            augment: How training images are varied.
            batch_size: Training images per batch and rank.
            eval_batch_size: Images per batch and rank elsewhere.
            workers: Processes that read images; 0 reads in this one.
            seed: The run's seed.
            balance: How training images are drawn; None draws each once an epoch.
            repeats: The same images, varied otherwise, for draws that are repeats; None varies them as all others.
            pixel_cache: Keeps decoded images; None decodes them whenever they are read.
            device_pixels: Whether images are made when a batch is moved to a device.

        Raises:
            ConfigError: A batch size or the number of workers makes no sense, or images cannot be made on a device.
        """
        super().__init__()
        least = {"batch_size": (batch_size, 1), "eval_batch_size": (eval_batch_size, 1), "workers": (workers, 0)}
        for name, (number, low) in least.items():
            if number < low:
                raise ConfigError(f"data.{name}={number} is too small. Use {low} or more.")
        self.table = with_value_range(table, spec.value_range)
        self.spec = spec
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.workers = workers
        self.seed = seed
        self.balance = balance or Balance()
        self.repeats = repeats
        self.pixel_cache = pixel_cache
        self.device_pixels = device_pixels
        self.first_epoch = 0
        if device_pixels:
            check_device_pixels(spec, augment, pixel_cache=pixel_cache is not None)
        self.train_transform = train_transform(spec, augment)
        self.eval_transform = eval_transform(spec)
        self.augmented = augment.enabled
        self.input_description = spec.description() | ({"device_pixels": FORMAT} if device_pixels else {})
        self.augment_description = {name: value for name, value in asdict(augment).items() if name not in OF_BATCHES}

    def training_weights(self) -> npt.NDArray[np.float64] | None:
        """Return how often each training image is drawn on average (N,), or None for once an epoch."""
        return self.balance.weights(self.table)

    def loader(self, split: str, *, augmented: bool, rank: int = 0, world_size: int = 1) -> "DataLoader[ImageBatch]":
        """Return the batches of a split: shuffled and varied for training, else in order and each image once.

        Raises:
            DataError: The split has no images.
        """
        rows = self.table.rows(split)
        if not len(rows):
            raise DataError(f"There are no images in the split '{split}' ({self.table.sizes()}).")
        batches: TrainBatches | EvalBatches
        if augmented:
            place = {"seed": self.seed, "rank": rank, "world_size": world_size}
            batches = self.balance.batches(self.table, rows, self.batch_size, **place)
        else:
            batches = EvalBatches(rows, self.eval_batch_size, rank=rank, world_size=world_size)
        return self.draws(batches, augmented=augmented, stored=self.stored(rows, augmented=augmented))

    def view_loader(self, split: str, view: int, *, rank: int = 0, world_size: int = 1) -> "DataLoader[ImageBatch]":
        """Return the images of a split in order, each once, in one of their views; the first is that of evaluation.

        Raises:
            DataError: The split has no images.
        """
        if view == 0:
            return self.loader(split, augmented=False, rank=rank, world_size=world_size)
        rows = self.table.rows(split)
        if not len(rows):
            raise DataError(f"There are no images in the split '{split}' ({self.table.sizes()}).")
        seeds = [seed_of(key) for key in view_keys(self.digests(rows), view)]
        batches = EvalBatches(rows, self.eval_batch_size, rank=rank, world_size=world_size, seeds=seeds)
        return self.draws(batches, augmented=True, stored=self.stored(rows, augmented=True))

    def stored(self, rows: npt.NDArray[np.int64], *, augmented: bool) -> StoredImages | None:
        """Return the stored pixels of some rows, or None where none are kept; those that are missing are stored."""
        if self.pixel_cache is None:
            return None
        paths = dict(zip(self.digests(rows), self.table.frame["path"].iloc[rows].tolist(), strict=True))
        if augmented and self.augmented:
            return self.pixel_cache.training(self.table.store, paths)
        return self.pixel_cache.evaluation(self.table.store, paths, self.eval_transform)

    def digests(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Return the digest of the content of each row's image."""
        frame = self.table.frame.iloc[rows]
        known = zip(frame["digest"].tolist(), frame["path"].tolist(), strict=True)
        return [
            found if isinstance(found, str) else content_digest(self.table.store.content(path)) for found, path in known
        ]

    def draws(
        self, batches: Iterable[list[Draw]], *, augmented: bool, stored: StoredImages | None = None
    ) -> "DataLoader[ImageBatch]":
        """Return batches of the images of given draws, varied by the seeds of the draws or as evaluation sees them.

        Images are read from their files, or taken from the stored ones where these are given.
        """
        plain = self.train_transform if augmented else self.eval_transform
        other = plain if self.repeats is None or not augmented else self.repeats.train_transform
        transform, repeated = (DeviceTransform(each) if self.device_pixels else each for each in (plain, other))
        images = ImageRows(
            self.table, transform, self.spec.channels, random=augmented and self.augmented, stored=stored,
            repeated=repeated,
        )  # fmt: skip
        return DataLoader(
            images,
            batch_sampler=batches,
            collate_fn=partial(collate, join=transform.join),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=start_worker,
            generator=torch.Generator(),
        )

    def _ranks(self) -> dict[str, int]:
        trainer = self.trainer
        return {} if trainer is None else {"rank": trainer.global_rank, "world_size": trainer.world_size}

    def train_dataloader(self) -> "DataLoader[ImageBatch]":
        """Return the training batches, starting with the first epoch to train."""
        loader = self.loader("train", augmented=True, **self._ranks())
        batches: Any = loader.batch_sampler
        batches.set_epoch(self.first_epoch)
        return loader

    def val_dataloader(self) -> "DataLoader[ImageBatch]":
        """Return the validation images in order."""
        return self.loader("val", augmented=False, **self._ranks())

    def test_dataloader(self) -> "DataLoader[ImageBatch]":
        """Return the test images in order."""
        return self.loader("test", augmented=False, **self._ranks())
