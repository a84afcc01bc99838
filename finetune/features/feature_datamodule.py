"""Data module of cached features for training, validation and prediction."""

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from finetune.data.datamodule import ImageData
from finetune.data.sampling import Draw, EvalBatches, TrainBatches
from finetune.features.cached_features import CachedFeatures
from finetune.features.extract import FeatureSettings, FeatureSource
from finetune.models.network import Network
from finetune.runtime.device import DevicePass, pass_of

EVAL_BATCH = 1024


class FeatureRows(Dataset[dict[str, Tensor]]):
    """Features addressed by draws; a whole batch is taken by one indexing operation.

    A draw's seed chooses the view.
    """

    def __init__(
        self,
        features: CachedFeatures,
        targets: np.ndarray,
        name: str = "features",
        repeats: CachedFeatures | None = None,
    ) -> None:
        """Serve features, under a name, with the targets of all rows of the table.

        Draws that are repeats get the later views of their own features, if there are any.
        """
        self.features = features
        self.repeats = repeats
        self.name = name
        self.targets = torch.from_numpy(targets)

    def __getitems__(self, draws: list[Draw]) -> dict[str, Tensor]:
        """Return a batch: features (B, F), or of sequences (B, T, 1 + F), target, row and valid."""
        rows = np.array([draw.row for draw in draws])
        views = np.array([draw.seed % self.features.views for draw in draws])
        return {
            self.name: self.values(rows, views, draws),
            "target": self.targets[torch.from_numpy(rows)],
            "row": torch.from_numpy(rows),
            "valid": torch.tensor([draw.valid for draw in draws]),
        }

    def values(self, rows: np.ndarray, views: np.ndarray, draws: list[Draw]) -> Tensor:
        """Return the features (B, F) of draws, given their rows (B,) and views (B,)."""
        if self.repeats is None:
            return self.features.take(rows, views)
        again = np.array([draw.repeat for draw in draws])
        first = self.features.take(rows[~again], views[~again]) if not again.all() else torch.empty(0)
        if not again.any():
            return first
        others = np.array([1 + draw.seed % (self.repeats.views - 1) for draw in draws if draw.repeat])
        varied = self.repeats.take(rows[again], others)
        found = torch.empty(len(draws), *varied.shape[1:])
        found[torch.from_numpy(again)] = varied
        if len(first):
            found[torch.from_numpy(~again)] = first
        return found

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """Return a batch of one."""
        return self.__getitems__([draw])


class FeatureData(pl.LightningDataModule):
    """Training and validation batches of features, made when the trainer first asks for them.

    By then the network is on its device and the ranks know each other: each computes its share of the images.
    """

    def __init__(self, images: ImageData, *, batch_size: int, seed: int, settings: FeatureSettings) -> None:
        """Serve the features of the images' train and val splits; `batch_size` is per rank."""
        super().__init__()
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.settings = settings
        self.source: FeatureSource | None = None
        self.found: dict[str, CachedFeatures] = {}

    def features(self, split: str) -> CachedFeatures:
        """Return the features of a split; every rank has all of them, and all must ask for them the first time."""
        if split in self.found:
            return self.found[split]
        assert self.trainer is not None
        if self.source is None:
            network = self.trainer.lightning_module.network
            assert isinstance(network, Network)
            self.source = FeatureSource(network, self.images, self.settings, pass_of(self.trainer))
        views = self.settings.views if split == "train" else 1
        self.found[split] = self.source.features(self.images.table.rows(split), views)
        return self.found[split]

    def repeats(self) -> CachedFeatures | None:
        """Return the features of images that an epoch draws again, in the views that such draws get.

        None where they get those of all others. Every rank has all of them, and all must ask for them.
        """
        resampling = self.images.balance.resampling(self.images.table)
        if self.images.repeats is None or resampling is None or not len(resampling.repeated()):
            return None
        assert self.trainer is not None and self.source is not None
        varied = FeatureSource(self.source.network, self.images.repeats, self.settings, pass_of(self.trainer))
        rows = self.images.table.rows("train")[resampling.repeated()]
        return varied.features(rows, 1 + self.settings.repeat_views)

    def train_dataloader(self) -> "DataLoader[dict[str, Tensor]]":
        """Return shuffled batches of training features."""
        assert self.trainer is not None
        features, images = self.features("train"), self.images
        place = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        batches = images.balance.batches(images.table, features.rows, self.batch_size, seed=self.seed, **place)
        batches.set_epoch(images.first_epoch)
        return feature_loader(features, batches, images, repeats=self.repeats())

    def val_dataloader(self) -> "DataLoader[dict[str, Tensor]]":
        """Return the validation features in order."""
        assert self.trainer is not None
        return eval_loader(self.features("val"), self.images, pass_of(self.trainer))


def eval_loader(
    features: CachedFeatures, images: ImageData, device_pass: DevicePass, view: int = 0
) -> "DataLoader[dict[str, Tensor]]":
    """Return features in one view in the order of their rows, each row once, shared among the ranks."""
    seeds = [view] * len(features.rows)
    batches = EvalBatches(
        features.rows, EVAL_BATCH, rank=device_pass.rank, world_size=device_pass.world_size, seeds=seeds
    )
    return feature_loader(features, batches, images)


def feature_loader(
    features: CachedFeatures,
    batches: TrainBatches | EvalBatches,
    images: ImageData,
    name: str = "features",
    repeats: CachedFeatures | None = None,
) -> "DataLoader[dict[str, Tensor]]":
    """Return a loader whose batches are slices of the features, under a name; repeats may have their own."""
    rows = FeatureRows(features, images.table.targets(), name, repeats)
    return DataLoader(rows, batch_sampler=batches, collate_fn=lambda batch: batch, generator=torch.Generator())
