"""An interrupted run that is resumed equals an uninterrupted one, weight for weight."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging
from resumed import Kill, Killed, train
from tiny import PHASES, strategy_config

from finetune.config.settings.phases import Strategy, build_strategy
from finetune.data.resampling import Balance
from finetune.runs.history import RunHistory
from finetune.runs.run import Run

# each place is a phase and an epoch of it; the kill comes in the middle of that epoch
PLACES = [
    (name, phase, epoch)
    for name, phases in PHASES.items()
    for phase, entry in enumerate(phases)
    for epoch in range(entry["epochs"])
]


class Batches(Callback):
    """Notes the rows of the training batches of each epoch."""

    def __init__(self) -> None:
        """Note nothing yet."""
        self.rows: dict[int, list[list[int]]] = {}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        epoch = pl_module.epochs_before + trainer.current_epoch
        self.rows[epoch] = [*(self.rows.get(epoch, []) if batch_idx else []), batch["row"].tolist()]


def tiny_strategy(name: str) -> Strategy:
    """Return a strategy of a few epochs."""
    return build_strategy(strategy_config(name))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, torch.Tensor], Path]]:
    """The final weights and folder of each strategy, trained without a break."""
    results = {}
    for name in PHASES:
        run = Run(tmp_path_factory.mktemp(name))
        results[name] = (train(run, tiny_strategy(name)), run.path)
    return results


@pytest.mark.parametrize(("name", "phase", "epoch"), PLACES)
def test_resume_equals_uninterrupted(
    uninterrupted: dict[str, tuple[dict[str, torch.Tensor], Path]], tmp_path: Path, name: str, phase: int, epoch: int
) -> None:
    run = Run(tmp_path)
    with pytest.raises(Killed):
        train(run, tiny_strategy(name), Kill(phase, epoch))
    resumed = train(run, tiny_strategy(name))
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
    whole = train(Run(tmp_path / "whole"), tiny_strategy("full"), EMAWeightAveraging(decay=0.9))
    run = Run(tmp_path / "broken")
    with pytest.raises(Killed):
        train(run, tiny_strategy("full"), EMAWeightAveraging(decay=0.9), Kill(0, epoch))
    resumed = train(run, tiny_strategy("full"), EMAWeightAveraging(decay=0.9))
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []


@pytest.mark.parametrize(("workers", "policy"), [(1, "none"), (2, "oversample")])
def test_batches_follow_seed_and_epoch_after_two_resumes_with_workers(
    tmp_path: Path, workers: int, policy: str
) -> None:
    phase = {"name": "full", "train": "all", "epochs": 3, "batchnorm": "train"}
    strategy = build_strategy({"name": "full", "adapter": None, "phases": [phase]})
    options: dict[str, Any] = {"workers": workers, "balance": Balance(policy)}
    first, second = Batches(), Batches()
    whole = train(Run(tmp_path / "whole"), strategy, first, **options)
    run = Run(tmp_path / "broken")
    for epoch in (1, 2):
        with pytest.raises(Killed):
            train(run, strategy, second, Kill(0, epoch), **options)
    resumed = train(run, strategy, second, **options)
    assert second.rows == first.rows
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []
