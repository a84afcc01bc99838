"""Snapshots: the networks that a run has at the ends of its cycles, kept for an ensemble."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from finetune.errors import ConfigError
from finetune.models.bundle import save_bundle
from finetune.training.classifier import Classifier

FOLDER = "snapshots"


class Snapshots(Callback):
    """Writes snapshots/1, snapshots/2 … in the run's folder; those of a later phase replace those of an earlier one.

    Source: Huang et al. 2017, Snapshot Ensembles: Train 1, Get M for Free, section 3.
    """

    def __init__(self, cycles: int) -> None:
        """Keep a network for each cycle of a phase.

        Raises:
            ConfigError: There is one cycle, whose end the run keeps anyway.
        """
        if cycles < 2:
            raise ConfigError("callbacks=snapshots needs cycles: type schedule.cycles=3 beside it.")
        self.cycles = cycles

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the network if a cycle has ended with this epoch."""
        assert isinstance(pl_module, Classifier)
        epochs, done = pl_module.phase.epochs, trainer.current_epoch + 1
        number = cycles_by(done, epochs, self.cycles)
        if not trainer.is_global_zero or number == cycles_by(done - 1, epochs, self.cycles):
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        table = data.table if hasattr(data, "table") else data.images.table
        folder = Path(trainer.default_root_dir) / FOLDER / str(number)
        save_bundle(pl_module.network, tuple(table.labels), table.task, folder)


def cycles_by(epochs: int, total: int, cycles: int) -> int:
    """Return how many of so many cycles are over after some of a phase's epochs."""
    return epochs * cycles // total
