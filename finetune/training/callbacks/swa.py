"""Stochastic weight averaging: the mean of the weights that the last epochs of a phase end with."""

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor

from finetune.errors import ConfigError


class StochasticWeightAveraging(WeightAveraging):
    """Keeps the plain weights of the first epochs, then the mean of those at the end of each epoch.

    Statistics of BatchNorm are averaged like weights. What has been averaged is known from the epoch alone, so that a
    resumed run averages the same.

    Source: Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization, section 3.
    """

    def __init__(self, start: float = 0.5) -> None:
        """Average from a share of the phase on.

        Args:
            start: Share of the epochs, from 0 to below 1, after which weights are averaged.

        Raises:
            ConfigError: It is no such share.
        """
        if not 0 <= start < 1:
            raise ConfigError(f"callbacks.swa.start={start} must be a share of the epochs, at least 0 and below 1.")
        super().__init__(avg_fn=self.mean)
        self.start = start
        self.epoch = 0
        self.first = 0
        self.over = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        """Note where the phase stands, and take the weights over where it is time."""
        self.epoch, self.over = trainer.current_epoch, trainer.is_last_batch
        self.first = math.floor(self.start * (trainer.max_epochs or 1))
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether to take weights over: each step's before the mean begins, then those that end an epoch."""
        return step_idx is not None and (self.epoch < self.first or self.over)

    def mean(self, averaged: Tensor, current: Tensor, number: Tensor | int) -> Tensor:
        """Return the mean with the current weights in it, all of a shape."""
        before = self.epoch - self.first  # epochs in the mean so far
        return current if before <= 0 else averaged + (current - averaged) / (before + 1)
