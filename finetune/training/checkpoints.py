"""Checkpoints of a run: the last epoch, from which it resumes, and the best one, which it ships.

It decides when they are written and which epoch is best, over all phases together; what a checkpoint holds is
Lightning's and the steps' business.
"""

import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from finetune.errors import RunError
from finetune.runs import Run, replacing

record = logging.getLogger("finetune.record")


class Checkpoints(Callback):
    """Writes last.ckpt after each epoch and best.ckpt whenever the monitored value improves.

    One object serves all phases of a run, so that the best epoch is the best of all of them; a tie is broken by the
    lower validation loss. Both files are replaced atomically.
    """

    def __init__(self, run: Run, monitor: str, mode: str) -> None:
        """Watch `monitor`, which is better when higher (mode max) or lower (mode min)."""
        self.run = run
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.best: tuple[float, float] | None = None
        self.best_epoch = -1

    @property
    def best_value(self) -> float | None:
        """The monitored value of the best epoch."""
        return None if self.best is None else self.sign * self.best[0]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoints of the epoch that has just been validated."""
        value, loss = (float(trainer.callback_metrics[name]) for name in (self.monitor, "val/loss"))
        if math.isnan(value):
            raise RunError(
                f"{self.monitor} is not a number, so no epoch can be the best. "
                "Monitor another value (monitor=val/loss mode=min), or enlarge the validation split (data.splits.val)."
            )
        score = (self.sign * value, -loss)
        improved = self.best is None or score > self.best
        if improved:
            self.best, self.best_epoch = score, pl_module.epochs_before + trainer.current_epoch  # type: ignore[operator,assignment]
        trainer.save_checkpoint(self.run.last_checkpoint)
        if improved and trainer.is_global_zero:
            record.info(
                "Epoch %d is the best so far: %s %.4f, val/loss %.4f", self.best_epoch, self.monitor, value, loss
            )
            with replacing(self.run.best_checkpoint) as temporary:
                shutil.copyfile(self.run.last_checkpoint, temporary)
        trainer.strategy.barrier("checkpoints")

    def state_dict(self) -> dict[str, Any]:
        """Return what decides whether a later epoch is better."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's best epoch."""
        best = state_dict["best"]
        self.best = None if best is None else (float(best[0]), float(best[1]))
        self.best_epoch = int(state_dict["best_epoch"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, without unpickling code.

    Raises:
        RunError: The file cannot be read.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise RunError(f"{path} cannot be read as a checkpoint ({error}). Start the run anew.") from error


def network_state(checkpoint: dict[str, Any], *, averaged: bool) -> dict[str, torch.Tensor]:
    """Return the network's weights in a checkpoint.

    Args:
        checkpoint: What `read_checkpoint` returned.
        averaged: Whether to prefer the moving average where the run kept one, or the weights that were training.
    """
    state = checkpoint["state_dict"] if averaged else checkpoint.get("current_model_state", checkpoint["state_dict"])
    prefix = "network."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
