"""Data module of cached activations, for phases in which only the end of a backbone moves, where that saves time."""

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from finetune.data.datamodule import ImageData
from finetune.data.sampling import EvalBatches
from finetune.features.extract import FeatureSettings, FeatureSource
from finetune.features.feature_datamodule import feature_loader
from finetune.features.frozen_prefix import Cut, find_cut
from finetune.models.network import Network
from finetune.runtime.device import DevicePass, pass_of
from finetune.runtime.format import format_size

log = logging.getLogger(__name__)

TRIED = 8


@dataclass(frozen=True)
class Costs:
    """What a phase costs with and without kept activations.

    Attributes:
        images: Passes of images through the prefix in the whole phase, training and validation.
        once: Passes that keeping them needs.
        seconds: Of one image's decoding and prefix.
        size: Bytes on disk.
        room: Bytes that the cache may hold.
    """

    images: int
    once: int
    seconds: float
    size: int
    room: int

    @property
    def saved(self) -> float:
        """The seconds that keeping the activations saves."""
        return (self.images - self.once) * self.seconds

    @property
    def worth_it(self) -> bool:
        """Whether they save time and fit."""
        return self.saved > 0 and self.size <= self.room

    def why(self) -> str:
        """Return the reason in words."""
        if self.size > self.room:
            return f"they take {format_size(self.size)}, more than cache.max_size={format_size(self.room)}"
        passes = f"{self.once:,} passes of images in place of {self.images:,}"
        if self.saved <= 0:
            return f"that would be {passes}"
        return f"{passes}: about {self.saved:.0f} s less for {format_size(self.size)} on disk"


class PrefixData(pl.LightningDataModule):
    """Training and validation batches of activations where that saves time, else of images.

    The views of kept activations are fixed; where nothing is kept, images are augmented anew in each epoch.
    """

    def __init__(self, images: ImageData, *, epochs: int, settings: FeatureSettings) -> None:
        """Serve the train and val splits for a number of epochs."""
        super().__init__()
        self.images = images
        self.epochs = epochs
        self.settings = settings
        self.cut: Cut | None = None
        self.source: FeatureSource | None = None

    def choose(self) -> None:
        """Find the cut, measure what it saves, and say what is done; all ranks do what the first one finds."""
        trainer = self._trainer()
        classifier: Any = trainer.lightning_module
        network: Network = classifier.network
        device_pass = pass_of(trainer)
        batch = self.some_images(device_pass)
        # compiled as a whole, no part is left out; repeats that are varied otherwise would be kept like all others
        whole = getattr(network.backbone, "_compiled_call_impl", None) is not None or self.images.repeats is not None
        cut = find_cut(network, batch) if device_pass.rank == 0 and not whole else None
        costs = self.costs(network, device_pass, batch, cut) if cut is not None else None
        if device_pass.rank == 0:
            log.info("%s", decision(classifier.phase.name, cut, costs))
        self.cut = device_pass.agreed(cut if costs is not None and costs.worth_it else None)
        classifier.cut = self.cut
        if self.cut is not None:
            self.source = self.source_of(network, device_pass, self.cut)

    def source_of(self, network: Network, device_pass: DevicePass, cut: Cut) -> FeatureSource:
        """Return what makes the activations at a cut."""
        return FeatureSource(
            network,
            self.images,
            self.settings,
            device_pass,
            encode=cut.encode,
            point=f"after {cut.name}",
            skip=cut.after,
            width=int(np.prod(cut.shape)),
        )

    def some_images(self, device_pass: DevicePass) -> Tensor:
        """Return a few training images (B, C, H, W) on the device."""
        rows = self.images.table.rows("train")[:TRIED]
        batches = EvalBatches(rows, TRIED)
        (batch,) = self.images.draws(batches, augmented=False)
        images: Tensor = batch["image"].to(device_pass.device)
        return (images if len(rows) > 1 else images.repeat(2, 1, 1, 1)).contiguous(memory_format=torch.channels_last)

    def costs(self, network: Network, device_pass: DevicePass, images: Tensor, cut: Cut) -> Costs:
        """Measure decoding and the prefix, and count the passes through it."""
        counts = {split: len(self.images.table.rows(split)) for split in ("train", "val")}
        wanted = counts["train"] * self.settings.views + counts["val"]
        source = self.source_of(network, device_pass, cut)
        kept = source.kept(self.images.table.rows("train"), self.settings.views)
        kept += source.kept(self.images.table.rows("val"), 1)
        seconds = timed(lambda: self.some_images(device_pass)) + timed(
            lambda: source.encode_images(network.backbone, images)
        )
        size = wanted * int(np.prod(cut.shape)) * np.dtype(self.settings.dtype).itemsize
        room = self.settings.cache.max_size if self.settings.cache is not None else 2**62
        resampling = self.images.balance.resampling(self.images.table)
        epoch = (counts["train"] if resampling is None else resampling.size) + counts["val"]
        return Costs(self.epochs * epoch, wanted - kept, seconds / len(images), size, room)

    def train_dataloader(self) -> "DataLoader[dict[str, Tensor]]":
        """Return shuffled training batches."""
        trainer = self._trainer()
        self.choose()
        if self.source is None:
            self.images.trainer = trainer
            return self.images.train_dataloader()
        features = self.source.features(self.images.table.rows("train"), self.settings.views)
        images, place = self.images, {"rank": trainer.global_rank, "world_size": trainer.world_size}
        batches = images.balance.batches(images.table, features.rows, images.batch_size, seed=images.seed, **place)
        batches.set_epoch(images.first_epoch)
        return feature_loader(features, batches, self.images, "activations")

    def val_dataloader(self) -> "DataLoader[dict[str, Tensor]]":
        """Return the validation batches in order."""
        trainer = self._trainer()
        if self.source is None:
            self.images.trainer = trainer
            return self.images.val_dataloader()
        features = self.source.features(self.images.table.rows("val"))
        batches = EvalBatches(
            features.rows, self.images.eval_batch_size, rank=trainer.global_rank, world_size=trainer.world_size
        )
        return feature_loader(features, batches, self.images, "activations")

    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None
        return self.trainer


def decision(phase: str, cut: Cut | None, costs: Costs | None) -> str:
    """Return what is done in a phase, and why."""
    if cut is None or costs is None:
        return (
            f"Phase {phase}: nothing is kept, since the backbone cannot be cut before what moves, or rare classes are "
            "augmented anew."
        )
    if not costs.worth_it:
        return f"Phase {phase}: activations after {cut.name} are not kept: {costs.why()}."
    return f"Phase {phase}: activations after {cut.name} are kept: {costs.why()}."


def timed(call: Any) -> float:
    """Return the seconds that a second call takes; the first one warms up."""
    call()
    started = time.monotonic()
    call()
    return time.monotonic() - started
