"""Trainings that are killed and go on, in a run's folder, with small real parts."""

import pytorch_lightning as pl
import torch
from configured import settings_for
from pytorch_lightning.callbacks import Callback
from tiny import tiny_images, tiny_table

from finetune.config.settings.phases import Strategy
from finetune.config.settings.training_groups import Augment, OptimizerSettings, Schedule, TrainerSettings
from finetune.data.resampling import Balance
from finetune.models.adapters import add_lora
from finetune.models.heads.modules import HeadSpec
from finetune.models.network import Network, build_network
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.training.callbacks.checkpoints import Checkpoints
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import Recipe, fit
from finetune.training.losses import CrossEntropy
from finetune.training.mixing import build_mixing
from finetune.training.resume import find_resume_point


class Killed(RuntimeError):
    """Stands for a kill -9: nothing runs after it."""


class Kill(Callback):
    """Ends training in the middle of an epoch of a phase."""

    def __init__(self, phase: int, epoch: int) -> None:
        """Choose the epoch."""
        self.place = (phase, epoch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if (pl_module.phase_index, trainer.current_epoch) == self.place:
            raise Killed


def tiny_network(strategy: Strategy) -> Network:
    """Return the network of `train` before its first phase, with chance in it that a resumed run must repeat."""
    head, options = HeadSpec(dropout=0.2), {"weights": "none", "image_size": 32, "drop_path_rate": 0.1}
    network = build_network("test_efficientnet", num_classes=10, head=head, **options)  # type: ignore[arg-type]
    if (adapter := strategy.adapter) is not None:
        add_lora(network.backbone, rank=adapter.rank, alpha=adapter.alpha, targets=adapter.targets)
    return network


def train(
    run: Run,
    strategy: Strategy,
    *callbacks: Callback,
    workers: int = 0,
    balance: Balance | None = None,
    lr: float = 1e-2,
) -> dict[str, torch.Tensor]:
    """Train, or go on training, in a run folder as the command does, and return the final weights."""
    pl.seed_everything(0, verbose=False)
    table = tiny_table(train=24, val=8, test=8)
    network = tiny_network(strategy)
    recipe = Recipe(
        CrossEntropy(),
        settings_for(OptimizerSettings, lr=lr),
        settings_for(Schedule, "cosine", 0.1, 0.0),
        settings_for(TrainerSettings, accelerator="cpu", devices=1, log_every=1),
        mixing=build_mixing(settings_for(Augment, mixup=0.5), num_classes=table.num_classes, task="multiclass"),
        head_batch_size=8,
    )
    checkpoints = Checkpoints(run, "val/accuracy", "max")
    place = find_resume_point(checkpoints, network, strategy, recipe.optimizer)
    history = RunHistory(run.history_file)
    history.truncate_after(place.reached)
    metrics = MetricsCallback(table.task, table.num_classes, history, 1)
    images = tiny_images(table, network, workers=workers, balance=balance)
    fit(network, strategy, images, recipe, place=place, metrics=metrics,
        checkpoints=checkpoints, callbacks=lambda: callbacks, loggers=[])  # fmt: skip
    return {key: value.clone() for key, value in network.state_dict().items()}
