"""A callback that writes the learning rate of each rank into the run's folder, so that ranks can be compared."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class RatesOfRanks(Callback):
    """Writes a file for each rank when a phase begins."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rate of the first layers, before the schedule changes it."""
        rate = trainer.optimizers[0].param_groups[0]["initial_lr"]
        Path(trainer.default_root_dir, f"rate_of_rank_{trainer.global_rank}").write_text(str(rate))
