"""An interrupted run that is resumed equals an uninterrupted one, weight for weight."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from configured import settings_for
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging
from tiny import PHASES, strategy_config, tiny_images, tiny_table

from finetune.config.settings.phases import build_strategy
from finetune.config.settings.training_groups import Augment, OptimizerSettings, Schedule, TrainerSettings
from finetune.models.adapters import add_lora
from finetune.models.heads.modules import HeadSpec
from finetune.models.network import build_network
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.training.callbacks.checkpoints import Checkpoints
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import Recipe, fit
from finetune.training.losses import CrossEntropy
from finetune.training.mixing import build_mixing
from finetune.training.resume import find_resume_point

# each place is a phase and an epoch of it; the kill comes in the middle of that epoch
PLACES = [
    (name, phase, epoch)
    for name, phases in PHASES.items()
    for phase, entry in enumerate(phases)
    for epoch in range(entry["epochs"])
]


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


def train(run: Run, name: str, *callbacks: Callback) -> dict[str, torch.Tensor]:
    """Train, or go on training, in a run folder as the command does, and return the final weights."""
    pl.seed_everything(0, verbose=False)
    table = tiny_table(train=24, val=8, test=8)
    strategy = build_strategy(strategy_config(name))
    network = build_network(
        "test_efficientnet",
        num_classes=table.num_classes,
        weights="none",
        head=HeadSpec(dropout=0.2),
        image_size=32,
        drop_path_rate=0.1,
    )
    if strategy.adapter is not None:
        add_lora(
            network.backbone, rank=strategy.adapter.rank, alpha=strategy.adapter.alpha, targets=strategy.adapter.targets
        )
    recipe = Recipe(
        CrossEntropy(),
        settings_for(OptimizerSettings, lr=1e-2),
        settings_for(Schedule, "cosine", 0.1, 0.0),
        settings_for(TrainerSettings, accelerator="cpu", devices=1, log_every=1),
        mixing=build_mixing(settings_for(Augment, mixup=0.5), num_classes=table.num_classes, task="multiclass"),
        head_batch_size=8,
    )
    checkpoints = Checkpoints(run, "val/accuracy", "max")
    place = find_resume_point(run.last_checkpoint, checkpoints, network)
    history = RunHistory(run.history_file)
    history.truncate_after(place.reached)
    metrics = MetricsCallback(table.task, table.num_classes, history, 1)
    fit(network, strategy, tiny_images(table, network), recipe, place=place, metrics=metrics,
        checkpoints=checkpoints, callbacks=lambda: callbacks, loggers=[])  # fmt: skip
    return {key: value.clone() for key, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, torch.Tensor], Path]]:
    """The final weights and folder of each strategy, trained without a break."""
    results = {}
    for name in PHASES:
        run = Run(tmp_path_factory.mktemp(name))
        results[name] = (train(run, name), run.path)
    return results


@pytest.mark.parametrize(("name", "phase", "epoch"), PLACES)
def test_resume_equals_uninterrupted(
    uninterrupted: dict[str, tuple[dict[str, torch.Tensor], Path]], tmp_path: Path, name: str, phase: int, epoch: int
) -> None:
    run = Run(tmp_path)
    with pytest.raises(Killed):
        train(run, name, Kill(phase, epoch))
    resumed = train(run, name)
    expected, folder = uninterrupted[name]
    assert [key for key in expected if not torch.equal(expected[key], resumed[key])] == []
    assert RunHistory(run.history_file).read() == RunHistory(Run(folder).history_file).read()
    best = [torch.load(Run(place).best_checkpoint, weights_only=True)["state_dict"] for place in (tmp_path, folder)]
    assert all(torch.equal(best[0][key], best[1][key]) for key in best[1])
    probes = [Run(place).probe_checkpoint for place in (tmp_path, folder)]
    assert [probe.is_file() for probe in probes] == [name == "lp_ft"] * 2
    if name == "lp_ft":
        kept = [torch.load(probe, weights_only=True)["state_dict"] for probe in probes]
        assert all(torch.equal(kept[0][key], kept[1][key]) for key in kept[1])


@pytest.mark.parametrize("epoch", [0, 1])
def test_resume_keeps_the_moving_average(tmp_path: Path, epoch: int) -> None:
    whole = train(Run(tmp_path / "whole"), "full", EMAWeightAveraging(decay=0.9))
    run = Run(tmp_path / "broken")
    with pytest.raises(Killed):
        train(run, "full", EMAWeightAveraging(decay=0.9), Kill(0, epoch))
    resumed = train(run, "full", EMAWeightAveraging(decay=0.9))
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []
