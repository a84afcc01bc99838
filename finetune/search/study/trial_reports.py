"""Trial reports: each validation goes to the study, and a run ends when it is behind the other trials.

All ranks end together.
"""

import json
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from finetune.errors import RunError
from finetune.search.study.trials import VARIABLE
from finetune.training.classifier import Classifier
from finetune.training.run_lifecycle import Pruned

if TYPE_CHECKING:
    from finetune.search.study.reporter import Reporter


class TrialReport(Callback):
    """Reports the metric of each epoch, and asks whether to go on; the first rank decides for all."""

    def __init__(self, message: dict[str, Any]) -> None:
        """Take what the sweep has told this process; the study is opened at the first report."""
        self.message = message
        self.reporter: Reporter | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch that has just been validated.

        Raises:
            Pruned: On all ranks, when the run is behind.
        """
        assert isinstance(pl_module, Classifier)
        metric = self.message["metric"]
        if metric is None or (metric not in trainer.callback_metrics and self.message["pruner"] == "none"):
            return
        if metric not in trainer.callback_metrics:
            raise RunError(
                f"Trials cannot be pruned by {metric}, which is not measured after each epoch. Set sweep.pruner=none."
            )
        epoch = pl_module.epochs_before + trainer.current_epoch
        value = float(trainer.callback_metrics[metric])
        behind = trainer.is_global_zero and self.is_behind(epoch, value)
        if trainer.strategy.reduce_boolean_decision(behind, all=False):
            raise Pruned(epoch, metric, value)

    def is_behind(self, epoch: int, value: float) -> bool:
        """Report a value and return whether the pruner would end the run."""
        if self.reporter is None:
            from finetune.search.study.reporter import Reporter  # optuna is loaded by trials alone

            self.reporter = Reporter(self.message)
        return self.reporter.is_behind(epoch, value)


def trial_reports() -> list[Callable[[], TrialReport]]:
    """Return what makes the callback of a run that is a trial; nothing for any other run."""
    message = os.environ.get(VARIABLE)
    return [partial(TrialReport, json.loads(message))] if message else []
