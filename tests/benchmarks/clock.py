"""A callback that writes how long training took, validation included, beside the run."""

import json
import time
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class Clock(Callback):
    """Adds the seconds of each phase to a file, from before its batches are made to its end."""

    def __init__(self, file: str) -> None:
        """Write to a file."""
        self.file = Path(file)
        self.started = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start."""
        self.started = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop."""
        before = json.loads(self.file.read_text()) if self.file.exists() else []
        self.file.write_text(json.dumps([*before, time.perf_counter() - self.started]))
