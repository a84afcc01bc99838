"""Checkpoints of a run: the last epoch, from which it resumes, the one before, the best, and the probe."""

import copy
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from finetune.errors import RunError
from finetune.runs.run import Run, replacing
from finetune.runtime.log_files import record
from finetune.training.classifier import Classifier

# an epoch on cached features takes less time than writing a checkpoint: that much work may be lost
SECONDS = 10.0
AT_REST = "network.backbone."


class CheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically, or holds them in memory until they are worth writing."""

    def __init__(self) -> None:
        """Hold nothing."""
        super().__init__()
        self.holding = False
        self.held: dict[Path, dict[str, Any]] = {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint, or hold a copy of what moves in it; the backbone stands still while it is held."""
        if not self.holding:
            write_checkpoint(checkpoint, Path(path))
            return
        state = checkpoint["state_dict"]
        kept = {name: value if name.startswith(AT_REST) else value.clone() for name, value in state.items()}
        rest = {name: value for name, value in checkpoint.items() if name != "state_dict"}
        self.held[Path(path)] = {"state_dict": kept, **copy.deepcopy(rest)}

    def write_held(self) -> None:
        """Write what is held, in the order in which it came."""
        for path, checkpoint in self.held.items():
            write_checkpoint(checkpoint, path)
        self.held.clear()


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    with replacing(path) as temporary:
        torch.save(checkpoint, temporary)


class Checkpoints(Checkpoint):
    """Writes last.ckpt after each epoch and best.ckpt whenever the monitored value improves.

    The last.ckpt of before is kept as previous.ckpt, to fall back on.

    One object serves all phases of a run, so that the best epoch is the best of all of them; a tie is broken by the
    lower validation loss. Both files are replaced atomically. While features are cached both are held in memory and
    written every ten seconds and at the end of the phase.

    As a `Checkpoint` it is called after all other callbacks, those that watch a value included, so that a checkpoint
    holds what each of them has made of the epoch.
    """

    def __init__(self, run: Run, monitor: str, mode: str) -> None:
        """Watch `monitor`, which is better when higher (mode max) or lower (mode min)."""
        self.run = run
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.best: tuple[float, float] | None = None
        self.best_epoch = -1
        self.io = CheckpointIO()
        self.written = 0.0
        self.follows_probe = False
        self.last_is_whole = True  # what the next epoch replaces is worth keeping

    @property
    def best_value(self) -> float | None:
        """The monitored value of the best epoch."""
        return None if self.best is None else self.sign * self.best[0]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the phase, and keep the probe that it starts from apart from what it makes of it."""
        self.written = time.monotonic()
        if self.follows_probe and trainer.is_global_zero and not self.run.probe_checkpoint.exists():
            duplicate(self.run.best_checkpoint, self.run.probe_checkpoint)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the epoch that has just been validated."""
        assert isinstance(pl_module, Classifier)
        value, loss = (float(trainer.callback_metrics[name]) for name in (self.monitor, "val/loss"))
        if math.isnan(value):
            raise RunError(
                f"{self.monitor} is not a number, so no epoch can be the best. "
                "Monitor another value (monitor=val/loss), or enlarge the validation split (data.splits.val)."
            )
        score = (self.sign * value, -loss)
        improved = self.best is None or score > self.best
        if improved:
            self.best, self.best_epoch = score, pl_module.epochs_before + trainer.current_epoch
            record.info(
                "Epoch %d is the best so far: %s %.4f, val/loss %.4f", self.best_epoch, self.monitor, value, loss
            )
        if pl_module.phase.backbone_frozen:
            self.hold(trainer, pl_module, improved)
        else:
            self.write(trainer, improved)
        trainer.strategy.barrier("checkpoints")

    def write(self, trainer: pl.Trainer, improved: bool) -> None:
        """Write the epoch: as the best before as the last, since a run that goes on from the last has that best."""
        self.io.holding = False
        if trainer.is_global_zero:
            self.keep_previous()
        trainer.save_checkpoint(self.run.best_checkpoint if improved else self.run.last_checkpoint)
        if improved and trainer.is_global_zero:
            duplicate(self.run.best_checkpoint, self.run.last_checkpoint)

    def hold(self, trainer: pl.Trainer, classifier: Classifier, improved: bool) -> None:
        """Hold the epoch if it is the best or the last, and write what is held when it is time."""
        over = trainer.should_stop or trainer.current_epoch + 1 >= classifier.phase.epochs
        due = over or time.monotonic() - self.written >= SECONDS
        due = trainer.strategy.broadcast(due)
        self.io.holding = True
        if improved:
            trainer.save_checkpoint(self.run.best_checkpoint)
        if due:
            if trainer.is_global_zero:
                self.keep_previous()
            trainer.save_checkpoint(self.run.last_checkpoint)
            self.io.write_held()
            self.written = time.monotonic()

    def keep_previous(self) -> None:
        """Keep the last checkpoint beside the one that is about to replace it, unless it is damaged."""
        if self.last_is_whole and self.run.last_checkpoint.exists():
            duplicate(self.run.last_checkpoint, self.run.previous_checkpoint)
        self.last_is_whole = True

    def state_dict(self) -> dict[str, Any]:
        """Return what decides whether a later epoch is better."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's best epoch."""
        best = state_dict["best"]
        self.best = None if best is None else (float(best[0]), float(best[1]))
        self.best_epoch = int(state_dict["best_epoch"])


def duplicate(source: Path, target: Path) -> None:
    """Give a file that is never changed, only replaced, a second name, or copy it where a disk has no such names."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, without unpickling code.

    Raises:
        RunError: The file cannot be read, or is no checkpoint.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - what a damaged file makes torch raise is of any kind
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(f"{path} cannot be read as a checkpoint ({first}). Start the run anew.") from error
    weights = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise RunError(f"{path} is no checkpoint: it holds no weights. Start the run anew.")
    return dict(found)


def network_state(checkpoint: dict[str, Any], *, averaged: bool) -> dict[str, torch.Tensor]:
    """Return the network's weights in a checkpoint.

    Args:
        checkpoint: What `read_checkpoint` returned.
        averaged: Whether to prefer the moving average where the run kept one, or the weights that were training.
    """
    state = checkpoint["state_dict"] if averaged else checkpoint.get("current_model_state", checkpoint["state_dict"])
    prefix = "network."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
