"""Checkpoints of an epoch hold what every callback has made of it, and survive a kill at any moment."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, EMAWeightAveraging
from resumed import Killed, train

from finetune.config.settings.phases import Strategy, build_strategy
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.training.callbacks.checkpoints import Checkpoints, read_checkpoint


class Counts(Callback):
    """A user's own callback, which counts the ends of epochs in all the ways there are."""

    def __init__(self) -> None:
        """Count from nothing."""
        self.counted = {"validation_epoch_end": 0, "validation_end": 0, "train_epoch_end": 0}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.counted["validation_epoch_end"] += 1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.counted["validation_end"] += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.counted["train_epoch_end"] += 1

    def state_dict(self) -> dict[str, Any]:
        return dict(self.counted)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counted = dict(state_dict)


def watched() -> list[Callback]:
    """Return callbacks of which several keep a state, new ones as a process makes them."""
    return [EarlyStopping("val/loss", patience=2, mode="min"), EMAWeightAveraging(decay=0.5), Counts()]


def strategy_of(train: str, epochs: int) -> Strategy:
    """Return a strategy of one phase."""
    cached = {"features": "cached"} if train == "head" else {}
    phase = {"name": "one", "train": train, "epochs": epochs, **cached}
    return build_strategy({"name": "one", "adapter": None, "phases": [phase]})


def kill_after_checkpoint(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let a training end as soon as it has kept an epoch, counted from 0."""
    keep = Checkpoints.on_train_epoch_end

    def killed(self: Checkpoints, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        keep(self, trainer, pl_module)
        if trainer.current_epoch == number:
            raise Killed

    monkeypatch.setattr(Checkpoints, "on_train_epoch_end", killed)


def test_kill_right_after_any_checkpoint_ends_in_the_same_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Run(tmp_path / "whole")
    expected = train(whole, strategy_of("all", 12), *watched(), lr=0.1)
    epochs = int(read_checkpoint(whole.last_checkpoint)["finetune"]["epochs"])
    assert 3 <= epochs < 12
    for epoch in (epochs - 3, epochs - 2, epochs - 1):
        run = Run(tmp_path / str(epoch))
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after_checkpoint(patch, epoch)
            train(run, strategy_of("all", 12), *watched(), lr=0.1)
        resumed = train(run, strategy_of("all", 12), *watched(), lr=0.1)
        assert [key for key in expected if not torch.equal(expected[key], resumed[key])] == []
        assert RunHistory(run.history_file).read() == RunHistory(whole.history_file).read()


@pytest.mark.parametrize("moves", ["all", "head"])
def test_checkpoint_holds_what_callbacks_have_made_of_its_epoch(tmp_path: Path, moves: str) -> None:
    run = Run(tmp_path)
    train(run, strategy_of(moves, 2), *watched())
    for path, epoch in ((run.last_checkpoint, 2), (run.best_checkpoint, None)):
        checkpoint = read_checkpoint(path)
        epochs = epoch or checkpoint["finetune"]["epochs"]
        assert set(checkpoint["callbacks"]["Counts"].values()) == {epochs}
        stopping = next(state for key, state in checkpoint["callbacks"].items() if key.startswith("EarlyStopping"))
        rows = [row for row in RunHistory(run.history_file).read() if "val/loss" in row]
        best = min(row["val/loss"] for row in rows[:epochs])
        assert float(stopping["best_score"]) == pytest.approx(best)
