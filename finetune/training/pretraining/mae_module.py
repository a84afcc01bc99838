"""The LightningModule of pretraining, and what is written after each epoch."""

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from finetune.config.settings.roots import PretrainRootSettings
from finetune.config.settings.training_groups import TrainerSettings
from finetune.data.datamodule import ImageData
from finetune.errors import RunError
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.training.optimizers import build_optimizer
from finetune.training.pretraining.autoencoder import MaskedAutoencoder, draw_noise
from finetune.training.schedules import build_scheduler

log = logging.getLogger(__name__)

_Batch = dict[str, Tensor]
PHASE = "pretrain"


class Pretrainer(pl.LightningModule):
    """A masked autoencoder, trained."""

    def __init__(
        self,
        model: MaskedAutoencoder,
        *,
        build_optimizer: Callable[[nn.Module], Optimizer],
        build_scheduler: Callable[[Optimizer, int], LRScheduler],
        seed: int,
        channels_last: bool = True,
    ) -> None:
        """Hold what a step needs; each image's mask is a function of the seed, the epoch and its row."""
        super().__init__()
        self.model = model
        self.build_optimizer = build_optimizer
        self.build_scheduler = build_scheduler
        self.seed = seed
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()

    def losses(self, batch: _Batch, epoch: int) -> Tensor:
        """Return the loss of each image (B,) of a batch."""
        rows = batch["row"].cpu().numpy()
        noise = draw_noise(rows, self.model.num_patches, seed=self.seed, epoch=epoch)
        found: Tensor = self.model(batch["image"], noise.to(batch["image"].device))[0]
        return found

    def on_after_batch_transfer(self, batch: _Batch, dataloader_idx: int) -> _Batch:
        """Lay the images out in the memory format that is asked for."""
        return batch | {"image": batch["image"].contiguous(memory_format=self.memory_format)}

    def on_train_epoch_start(self) -> None:
        """Make stochastic depth a function of seed, epoch and rank, so that a resumed run repeats it."""
        place = [self.seed, self.current_epoch, self.global_rank]
        pl.seed_everything(int(np.random.SeedSequence(place).generate_state(1)[0]), verbose=False)
        self.train_loss.reset()

    def on_validation_epoch_start(self) -> None:
        """Start the mean anew."""
        self.val_loss.reset()

    def training_step(self, batch: _Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch."""
        losses = self.losses(batch, self.current_epoch)
        self.train_loss.update(losses.detach())
        return losses.mean()

    def validation_step(self, batch: _Batch, batch_idx: int) -> None:
        """Add the losses of images that are not padding, whose masks are the same in every epoch."""
        losses = self.losses(batch, 0)[batch["valid"]]
        if len(losses):
            self.val_loss.update(losses)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer with its schedule, stepped after each optimizer step."""
        optimizer = self.build_optimizer(self.model)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.build_scheduler(optimizer, steps), "interval": "step"},
        }


class UnlabelledImages(pl.LightningDataModule):
    """Batches of the training split, and of the validation split where there is one."""

    def __init__(self, images: ImageData) -> None:
        """Serve the batches of some images."""
        super().__init__()
        self.images = images

    def train_dataloader(self) -> "DataLoader[_Batch]":
        """Return the training batches, starting with the first epoch to train."""
        self.images.trainer = self.trainer
        return self.images.train_dataloader()

    def val_dataloader(self) -> "DataLoader[_Batch] | list[Any]":
        """Return the validation images in order."""
        self.images.trainer = self.trainer
        return self.images.val_dataloader() if len(self.images.table.rows("val")) else []


class EpochEnd(Callback):
    """Writes a row of the history and last.ckpt after each epoch."""

    def __init__(self, run: Run, history: RunHistory | None, epochs: int) -> None:
        """Write into a run's folder; all ranks but the first have no history."""
        self.run = run
        self.history = history
        self.epochs = epochs
        self.started = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the epoch."""
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the epoch that is over."""
        assert isinstance(pl_module, Pretrainer)
        values = {"train/loss": float(pl_module.train_loss.compute())}
        if trainer.val_dataloaders:
            values["val/loss"] = float(pl_module.val_loss.compute())
        if not all(map(math.isfinite, values.values())):
            raise RunError("The loss is not a number. Lower the rate (optimizer.lr) or use trainer.precision=32-true.")
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        row = {"step": trainer.global_step, "epoch": trainer.current_epoch, "phase": PHASE, "lr": rate, **values}
        if self.history is not None:
            self.history.append(row)
        for logger in trainer.loggers:
            logger.log_metrics({"lr": rate, **values}, step=trainer.global_step)
        if trainer.is_global_zero:
            told = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
            seconds = time.monotonic() - self.started
            log.info("Epoch %d of %d in %.1f s: %s", trainer.current_epoch + 1, self.epochs, seconds, told)
        trainer.save_checkpoint(self.run.last_checkpoint)
        trainer.strategy.barrier("pretraining")


def mae_parameter_groups(model: MaskedAutoencoder, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return two optimizer groups: what decays, and biases, norms, positions and tokens, which do not."""
    kept = {f"encoder.{name}" for name in model.encoder.no_weight_decay()} | {"decoder.hidden"}
    moving = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    plain = [weight for name, weight in moving if weight.ndim <= 1 or name in kept]
    decayed = [weight for name, weight in moving if not (weight.ndim <= 1 or name in kept)]
    return [
        {"params": decayed, "name": "weights", "lr": lr, "weight_decay": weight_decay},
        {"params": plain, "name": "no_decay", "lr": lr, "weight_decay": 0.0},
    ]


def build_module(
    settings: PretrainRootSettings, model: MaskedAutoencoder, trainer_settings: TrainerSettings
) -> Pretrainer:
    """Return the steps of the training."""
    optimizer = settings.optimizer
    if trainer_settings.compile:
        model.compile()

    def make(moving: nn.Module) -> Optimizer:
        assert isinstance(moving, MaskedAutoencoder)
        groups = mae_parameter_groups(moving, lr=optimizer.lr, weight_decay=optimizer.weight_decay)
        return build_optimizer(optimizer.name, groups, optimizer.options, fuse=trainer_settings.fuses)

    return Pretrainer(
        model,
        build_optimizer=make,
        build_scheduler=partial(build_scheduler, schedule=settings.schedule),
        seed=settings.seed,
        channels_last=trainer_settings.channels_last,
    )
