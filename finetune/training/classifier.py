"""The LightningModule: one step of training and validation for one phase."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from finetune.config.settings.phases import Phase
from finetune.features.frozen_prefix import Cut
from finetune.models.network import Network
from finetune.training.regularizers import Regularizer

LabelledBatch = dict[str, Tensor]


class Classifier(pl.LightningModule):
    """A network, trained for one phase of a strategy."""

    def __init__(
        self,
        network: Network,
        phase: Phase,
        loss: nn.Module,
        *,
        build_optimizer: Callable[[Network], Optimizer],
        build_scheduler: Callable[[Optimizer, int], LRScheduler],
        mixing: Callable[[LabelledBatch], LabelledBatch] | None = None,
        feature_mixing: Callable[[LabelledBatch], LabelledBatch] | None = None,
        regularizer: Regularizer | None = None,
        seed: int = 0,
        phase_index: int = 0,
        steps_before: int = 0,
        epochs_before: int = 0,
        monitor: str = "val/accuracy",
        channels_last: bool = True,
        image_weights: Tensor | None = None,
    ) -> None:
        """Hold what a step needs.

        Args:
            network: The network; its layers are already frozen as the phase says.
            phase: The phase that is trained.
            loss: Logits (B, K) and targets (B,) or (B, K) to a scalar.
            build_optimizer: Makes the optimizer over the moving parameters.
            build_scheduler: Makes the schedule from the optimizer and the phase's number of steps.
            mixing: Mixes the images and targets of a training batch; None for no mixing.
            feature_mixing: The same for cached features.
            regularizer: Penalties beside those of the optimizer; None for none.
            seed: The run's seed; each epoch's randomness is a function of it, the phase and the epoch.
            phase_index: The position of the phase in its strategy.
            steps_before: Optimizer steps of the phases before this one.
            epochs_before: Epochs of the phases before this one.
            monitor: The name of the metric that decides which checkpoint is best.
            channels_last: Whether images are laid out with channels last.
            image_weights: What each row of the table (N,) counts in the training loss; None where all count the same.
        """
        super().__init__()
        self.network = network
        self.phase = phase
        self.loss = loss
        self.build_optimizer = build_optimizer
        self.build_scheduler = build_scheduler
        self.mixing = mixing
        self.feature_mixing = feature_mixing
        self.regularizer = regularizer or Regularizer()
        self.seed = seed
        self.phase_index = phase_index
        self.steps_before = steps_before
        self.epochs_before = epochs_before
        self.monitor = monitor
        self.cut: Cut | None = None  # where kept activations go on; set by the phase's batches
        self.image_weights = image_weights
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def forward(self, batch: LabelledBatch) -> Tensor:
        """Return the logits (B, K) of a batch of images (B, C, H, W), of cached features (B, F), or of activations.

        Of sequences there are the images of all frames, and how many each has, or cached features (B, T, 1 + F).
        """
        if "activations" in batch:
            assert self.cut is not None
            return self.network.head(self.cut.resume(self.network.backbone, batch["activations"]))  # type: ignore[no-any-return]
        if "features" in batch:
            return self.network.head(batch["features"])  # type: ignore[no-any-return]
        frames = (batch["frames"],) if "frames" in batch else ()
        return self.network(batch["image"], *frames)  # type: ignore[no-any-return]

    def on_train_epoch_start(self) -> None:
        """Make dropout and mixing a function of seed, phase, epoch and rank, so that a resumed run repeats them."""
        place = [self.seed, self.phase_index, self.current_epoch, self.global_rank]
        pl.seed_everything(int(np.random.SeedSequence(place).generate_state(1)[0]), verbose=False)

    def on_after_batch_transfer(self, batch: LabelledBatch, dataloader_idx: int) -> LabelledBatch:
        """Lay the images out in the memory format that the network is in."""
        for name in ("image", "activations"):
            if name in batch and batch[name].ndim == 4:
                batch[name] = batch[name].contiguous(memory_format=self.memory_format)
        return batch

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return the loss of a training batch, mixed where the augmentation says so, and penalised."""
        if self.mixing is not None and "image" in batch:
            batch = self.mixing(batch)
        if self.feature_mixing is not None and "features" in batch:
            batch = self.feature_mixing(batch)
        loss, penalty = self.training_loss(batch), self.regularizer.penalty(self.network)
        return {"loss": loss if penalty is None else loss + penalty}

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Let the optimizer step, and the head's weights shrink where they are to become zero."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.regularizer.shrink(getattr(optimizer, "optimizer", optimizer))  # Lightning wraps it

    def notes(self) -> dict[str, float]:
        """Return what there is to log at the end of an epoch beside losses and metrics."""
        return self.regularizer.notes(self.network)

    def training_loss(self, batch: LabelledBatch) -> Tensor:
        """Return the mean loss of a training batch, weighted by image where images have weights."""
        if self.image_weights is None:
            return self.loss(self(batch), batch["target"])  # type: ignore[no-any-return]
        weights = self.image_weights[batch["row"].cpu()]
        return self.loss(self(batch), batch["target"], weights)  # type: ignore[no-any-return]

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return the mean loss, logits and targets of the images that are not padding."""
        logits = self(batch)[batch["valid"]].float()
        target = batch["target"][batch["valid"]]
        loss = self.loss(logits, target) if len(target) else logits.new_zeros(())
        return {"loss": loss, "logits": logits, "target": target}

    def on_validation_start(self) -> None:
        """Give every rank the same BatchNorm statistics, which each has moved by its own batches."""
        if self.trainer.world_size > 1:
            average_buffers(self.network)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the phase's optimizer with its schedule, stepped after each optimizer step."""
        optimizer = self.build_optimizer(self.network)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        scheduler = self.build_scheduler(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say in the checkpoint which phase it belongs to and whether that phase is over."""
        trainer = self.trainer
        done: Any = trainer.fit_loop.epoch_progress.current
        epochs: int = done.processed
        checkpoint["finetune"] = {
            "phase": self.phase_index,
            "finished": bool(trainer.should_stop or epochs >= self.phase.epochs),
            "steps_before": self.steps_before,
            "epochs_before": self.epochs_before,
            "steps": self.steps_before + trainer.global_step,
            "epochs": self.epochs_before + epochs,
        }


def average_buffers(network: nn.Module) -> None:
    """Replace each floating-point buffer by its mean over the ranks, and each other one by the first rank's."""
    for buffer in network.buffers():
        if buffer.is_floating_point():
            torch.distributed.all_reduce(buffer)
            buffer /= torch.distributed.get_world_size()
        else:
            torch.distributed.broadcast(buffer, 0)
