"""What a joined network says of a run's own images, by passing them through it.

It decides how the images of a split are read and batched as in an evaluation; which network that is, is the caller's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from finetune.data.datamodule import ImageData
from finetune.data.sequences.batches import loaders_of
from finetune.data.table import ImageTable
from finetune.data.transforms import Augment
from finetune.evaluation.images import Vocabulary, own_images
from finetune.evaluation.inference import predict_loader
from finetune.evaluation.rerun_settings import available_workers, own_precision, own_views, use_device
from finetune.models.network import Network
from finetune.runs.run import Run

_Outputs = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Runner:
    """Passes a run's images through networks.

    Attributes:
        run: Whose images, views and precision.
        device: Where.
        precision: 32-true, bf16-mixed or 16-mixed.
        views: Of each image.
        augment: How views are varied.
        vocabulary: The labels.
        batch_size: Images at a time.
        workers: Processes that read images.
    """

    run: Run
    device: torch.device
    precision: str
    views: int
    augment: Augment
    vocabulary: Vocabulary
    batch_size: int
    workers: int

    @classmethod
    def of(cls, run: Run, vocabulary: Vocabulary, config: Mapping[str, Any]) -> "Runner":
        """Return one that does as evaluations of the run do."""
        device = use_device(config["device"])
        views, augment = own_views(run, None)
        size = config["batch_size"] or run.config["data"]["eval_batch_size"]
        workers = config["workers"] if config["workers"] is not None else available_workers(device)
        return cls(run, device, own_precision(run, None, device), views, augment, vocabulary, size, workers)

    def table(self, split: str) -> ImageTable:
        """Return the run's own images of a split."""
        return own_images(self.run, self.run.config["data"]["source"], split, self.vocabulary).table

    def images(self, network: Network, split: str) -> ImageData:
        """Return the batches of a split as a network wants them."""
        table = self.table(split)
        return loaders_of(table)(
            table, network.spec, self.augment, eval_batch_size=self.batch_size, workers=self.workers,
            batch_size=self.batch_size,
        )  # fmt: skip

    def outputs(self, network: Network, split: str) -> tuple[ImageTable, _Outputs]:
        """Return the images of a split, and the rows (N,) and logits (V, N, K) of what a network says of them."""
        images = self.images(network, split)
        parts = [
            predict_loader(network, images.view_loader(split, view), device=self.device, precision=self.precision)
            for view in range(self.views)
        ]
        network.cpu()
        return images.table, (parts[0].rows, np.stack([part.logits for part in parts]))

    @torch.no_grad()
    def refresh_norms(self, network: Network) -> None:
        """Give BatchNorm layers the statistics that the training images have in a network of averaged weights.

        Source: Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization, section 3.2.
        """
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        images = self.images(network, "train")
        network.to(self.device)
        network.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True  # the mean over all batches
        for batch in images.view_loader("train", 0):
            frames = (batch["frames"],) if "frames" in batch else ()
            network(self.laid_out(batch["image"]), *frames)
        network.eval().cpu()

    def laid_out(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) where and as networks want them."""
        return images.to(self.device).contiguous(memory_format=torch.channels_last)


def has_norms(module: nn.Module) -> bool:
    """Return whether a module has BatchNorm layers."""
    return any(isinstance(part, _BatchNorm) for part in module.modules())
