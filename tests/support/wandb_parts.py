"""A run folder, what is logged to it and a tracker over it, for tests of what W&B records."""

import os
from pathlib import Path
from typing import Any

from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.runs.wandb import Tracker, start_wandb

CONFIG: dict[str, Any] = {"seed": 0, "model": {"name": "test_efficientnet", "mean": None}, "lr": 1e-3, "tags": ["a"]}
# the monitored value rises and falls again
ACCURACIES = (0.5, 0.9, 0.7)


def create(path: Path) -> Run:
    return Run.create(path, config=CONFIG, command=["finetune"], seed=0)


def resume(run: Run) -> Run:
    run.update(status="interrupted")
    run.continue_with(["finetune", "resume=last"])
    return run


def start(run: Run, **changes: Any) -> Tracker | None:
    options: dict[str, Any] = {
        "project": "bees", "entity": None, "mode": "offline", "name": "mobile-full/today", "group": "sweep 1",
        "job_type": "train", "tags": ["a", "b"], "monitor": "val/accuracy", "mode_of_monitor": "max",
        "checkpoints": "none",
    }  # fmt: skip
    return start_wandb(run, CONFIG, **{**options, **changes})


def tracked(run: Run, **changes: Any) -> Tracker:
    tracker = start(run, **changes)
    assert tracker is not None
    return tracker


def log_epochs(tracker: Tracker, *, accuracies: tuple[float, ...] = ACCURACIES, first: int = 0) -> None:
    """Log what the metrics callback logs, to the history and to W&B."""
    history = RunHistory(tracker.run.history_file)
    for epoch, accuracy in enumerate(accuracies, first):
        values = {"epoch": epoch, "val/accuracy": accuracy, "val/loss": 1 - accuracy, "train/loss": 2.0}
        history.append({"step": 10 * epoch, **values})
        tracker.logger.log_metrics(values, step=10 * epoch)


def save_checkpoints(run: Run, *names: str) -> None:
    for name in names:
        (run.checkpoints / f"{name}.ckpt").write_bytes(name.encode() + os.urandom(1000))
