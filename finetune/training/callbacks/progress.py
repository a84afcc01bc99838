"""The progress bar of a phase: one line on a terminal, nothing elsewhere."""

import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch import Tensor

from finetune.training.classifier import Classifier, LabelledBatch


class PhaseProgressBar(Callback):
    """Shows phase, epoch, loss, images per second and the monitored value; the line stays when the phase is over.

    Between two refreshes a step costs a clock reading and one addition on the device; the loss is read from the
    device when the line is drawn. It is a plain callback, not Lightning's ProgressBar, so that Lightning's own bar
    can stay switched off.
    """

    def __init__(self, console: Console | None = None, refreshes_per_second: float = 5.0) -> None:
        """Draw on `console`; None is the standard output, where nothing is drawn unless it is a terminal."""
        self.console = console or Console()
        # FORCE_COLOR makes rich take a file for a terminal: colours are welcome there, moving lines are not
        self.shown = self.console.is_interactive and (console is not None or sys.stdout.isatty())
        self.interval = 1 / refreshes_per_second
        self.progress: Progress | None = None
        self.task = TaskID(0)
        self.monitored = ""
        self.restart()

    def restart(self) -> None:
        """Start the sums of an epoch."""
        self.loss: Tensor | float = 0.0
        self.batches = self.images = 0
        self.seconds = 0.0
        self.drawn = -1.0
        self.resumed = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the line on the screen."""
        assert isinstance(pl_module, Classifier)
        if not (self.shown and trainer.is_global_zero):
            return
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            auto_refresh=False,
            expand=True,
        )
        self.task = self.progress.add_task(pl_module.phase.name, total=None, numbers="")
        self.progress.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Name the epoch and start its sums."""
        assert isinstance(pl_module, Classifier)
        if self.progress is None:
            return
        self.restart()
        phase = pl_module.phase
        self.progress.update(
            self.task,
            description=f"{phase.name} {trainer.current_epoch + 1}/{phase.epochs}",
            total=float(trainer.num_training_batches),
            completed=0,
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: LabelledBatch, batch_idx: int
    ) -> None:
        """Add a batch up, and draw the line when it is time."""
        if self.progress is None:
            return
        self.loss = self.loss + outputs["loss"].detach()
        self.batches += 1
        self.images += len(batch["target"]) * trainer.world_size
        now = time.monotonic()
        if now - self.drawn >= self.interval:
            self.draw(self.seconds + now - self.resumed, batch_idx + 1)
            self.drawn = now

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock of training, and draw the finished line of its epoch."""
        self.seconds += time.monotonic() - self.resumed
        if self.progress is not None and self.batches:
            self.draw(self.seconds, self.batches)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the new value of what is monitored."""
        assert isinstance(pl_module, Classifier)
        self.resumed = time.monotonic()
        value = trainer.callback_metrics.get(pl_module.monitor)
        if self.progress is not None and value is not None:
            self.monitored = f"  {pl_module.monitor} {float(value):.4f}"
            self.draw(self.seconds, self.batches)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the last line on the screen."""
        self.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the screen back for what is said about the error."""
        self.stop()

    def draw(self, seconds: float, completed: int) -> None:
        """Draw the line; this is the only place that waits for the device."""
        assert self.progress is not None
        numbers = ""
        if self.batches:
            loss = float(torch.as_tensor(self.loss)) / self.batches
            numbers = f"loss {loss:.3f}  {self.images / max(seconds, 1e-9):,.0f} images/s"
        self.progress.update(self.task, completed=completed, numbers=numbers + self.monitored, refresh=True)

    def stop(self) -> None:
        """Stop drawing; a second call does nothing."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
