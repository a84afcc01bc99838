"""Features of a backbone that stands still: each image passes through it once, and the head trains on the result.

It decides when and how features are computed and served as batches; which phases may use them is decided by
`finetune.strategies.phases`, and keeping them beyond the phase is left to a later layer behind `compute_features`.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from finetune.data.datamodule import ImageData
from finetune.data.sampling import Draw, EvalBatches, TrainBatches
from finetune.models.network import Network


@dataclass(frozen=True)
class Features:
    """Features of some images.

    Attributes:
        rows: Row numbers in the table (N,).
        values: Pooled features (N, F), float32, on the CPU.
        targets: Class numbers (N,) or multi-hot vectors (N, K).
    """

    rows: Tensor
    values: Tensor
    targets: Tensor

    def ordered(self) -> "Features":
        """Return the same features in ascending order of their rows."""
        order = torch.argsort(self.rows)
        return Features(self.rows[order], self.values[order], self.targets[order])


@torch.no_grad()
def compute_features(
    network: Network,
    batches: Iterable[dict[str, Tensor]],
    device: torch.device,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Features:
    """Pass each image through the backbone once.

    Args:
        network: The network; its backbone is put in eval mode, as frozen layers are.
        batches: Batches of images (B, C, H, W) with row, target and valid; padding is left out.
        device: Where the backbone runs.
        precision: Makes the context in which the backbone runs, such as autocast; float32 by default.
    """
    backbone = network.backbone.to(device).eval()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in batches:
        images = batch["image"].to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        with precision():
            values = backbone(images)
        valid = batch["valid"]
        parts.append((batch["row"][valid], values.float().cpu()[valid], batch["target"][valid]))
    rows, features, targets = (torch.cat(column) for column in zip(*parts, strict=True))
    return Features(rows, features, targets)


def gather(features: Features, world_size: int) -> Features:
    """Return the features of all ranks in the order of their rows, each rank having computed its share."""
    if world_size == 1:
        return features.ordered()
    shares: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(shares, features)
    parts = (torch.cat([getattr(share, name) for share in shares]) for name in ("rows", "values", "targets"))
    return Features(*parts).ordered()


class FeatureRows(Dataset[dict[str, Tensor]]):
    """Features addressed by row number; a whole batch is taken by one indexing operation."""

    def __init__(self, features: Features) -> None:
        """Index the features by their rows."""
        self.features = features
        self.position: npt.NDArray[np.int64] = np.full(int(features.rows.max()) + 1, -1, dtype=np.int64)
        self.position[features.rows.numpy()] = np.arange(len(features.rows))

    def __getitems__(self, draws: list[Draw]) -> dict[str, Tensor]:
        """Return a batch: features (B, F), target, row and valid."""
        rows = np.array([draw.row for draw in draws])
        index = torch.from_numpy(self.position[rows])
        return {
            "features": self.features.values[index],
            "target": self.features.targets[index],
            "row": torch.from_numpy(rows),
            "valid": torch.tensor([draw.valid for draw in draws]),
        }

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """Return a batch of one."""
        return self.__getitems__([draw])


class FeatureData(pl.LightningDataModule):
    """Training and validation batches of cached features, computed when the trainer first asks for them.

    By then the network is on its device and the ranks know each other: each computes its share of the images.
    """

    def __init__(self, images: ImageData, *, batch_size: int, seed: int) -> None:
        """Serve the features of the images' train and val splits; `batch_size` is per rank."""
        super().__init__()
        self.images = images
        self.batch_size = batch_size
        self.seed = seed

    def features(self, split: str) -> Features:
        """Return the features of a split; every rank has all of them."""
        trainer = self.trainer
        assert trainer is not None
        network = trainer.lightning_module.network
        assert isinstance(network, Network)
        loader = self.images.loader(split, augmented=False, rank=trainer.global_rank, world_size=trainer.world_size)
        context = trainer.precision_plugin.forward_context
        share = compute_features(network, loader, trainer.strategy.root_device, context)
        return gather(share, trainer.world_size)

    def train_dataloader(self) -> "DataLoader[dict[str, Tensor]]":
        """Return shuffled batches of training features."""
        trainer = self.trainer
        assert trainer is not None
        features = self.features("train")
        batches = TrainBatches(
            features.rows.numpy(),
            self.batch_size,
            seed=self.seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            weights=self.images.training_weights(),
        )
        done: Any = trainer.fit_loop.epoch_progress.current
        batches.set_epoch(done.processed)
        return feature_loader(features, batches)

    def val_dataloader(self) -> "DataLoader[dict[str, Tensor]]":
        """Return the validation features in order."""
        trainer = self.trainer
        assert trainer is not None
        features = self.features("val")
        batches = EvalBatches(features.rows.numpy(), 1024, rank=trainer.global_rank, world_size=trainer.world_size)
        return feature_loader(features, batches)


def feature_loader(features: Features, batches: TrainBatches | EvalBatches) -> "DataLoader[dict[str, Tensor]]":
    """Return a loader whose batches are slices of the features in memory."""
    return DataLoader(
        FeatureRows(features), batch_sampler=batches, collate_fn=lambda batch: batch, generator=torch.Generator()
    )
