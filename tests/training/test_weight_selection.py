"""What a run keeps is never worse on validation than its probe, and says which weights they are."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from configured import settings_for
from tiny import tiny_images, tiny_table

from finetune.config.settings.phases import Phase, Strategy
from finetune.config.settings.training_groups import OptimizerSettings, Schedule, TrainerSettings
from finetune.data.datamodule import ImageData
from finetune.errors import ConfigError
from finetune.models.network import Network, build_network
from finetune.runs.run import Run
from finetune.runtime.device import DevicePass
from finetune.training.callbacks.checkpoints import Checkpoints, network_state, read_checkpoint
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import Recipe, fit
from finetune.training.losses import CrossEntropy
from finetune.training.resume import ResumePoint
from finetune.training.weight_selection import (
    SelectedWeights,
    WeightCandidate,
    best_candidate,
    check_shares,
    interpolate_weights,
    select_weights,
)

CPU = DevicePass(torch.device("cpu"))
STRATEGY = Strategy(
    "lp_ft",
    (Phase("probe", "head", epochs=3, features="cached", lr=5e-2), Phase("finetune", "all", epochs=1)),
)


@dataclass
class Trained:
    """A network of two phases, and what it was trained with."""

    run: Run
    network: Network
    images: ImageData
    recipe: Recipe
    pretrained: dict[str, torch.Tensor]

    def keep(self, *shares: float, mode: str = "max", **settings: object) -> SelectedWeights:
        """Return what is kept of it."""
        recipe = replace(self.recipe, **settings)
        return select_weights(self.run, self.network, STRATEGY, self.images, recipe, CPU, mode=mode, shares=shares)


def trained(folder: Path, rate: float) -> Trained:
    """Train a small network whose fine-tuning has a rate of its own."""
    pl.seed_everything(0, verbose=False)
    table = tiny_table(train=64, val=40, test=8)
    network = build_network("test_efficientnet", num_classes=table.num_classes, weights="none", image_size=32)
    pretrained = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    recipe = Recipe(
        CrossEntropy(), settings_for(OptimizerSettings, lr=rate), settings_for(Schedule, "constant"),
        settings_for(TrainerSettings, accelerator="cpu", devices=1), head_batch_size=16,
    )  # fmt: skip
    run, images = Run(folder), tiny_images(table, network, batch_size=16)
    metrics = MetricsCallback(table.task, table.num_classes, None, 1)
    checkpoints = Checkpoints(run, "val/accuracy", "max")
    fit(network, STRATEGY, images, recipe, place=ResumePoint(), metrics=metrics, checkpoints=checkpoints,
        callbacks=tuple, loggers=[])  # fmt: skip
    return Trained(run, network, images, recipe, pretrained)


@pytest.fixture(scope="module")
def ruined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """A network whose fine-tuning destroys what the probe has learnt."""
    yield trained(tmp_path_factory.mktemp("ruined"), rate=0.5)


def state_of(path: Path) -> dict[str, torch.Tensor]:
    return network_state(read_checkpoint(path), averaged=True)


def accuracy(trained: Trained, state: dict[str, torch.Tensor]) -> float:
    """Return the share of validation images that weights label rightly, image for image."""
    trained.network.load_state_dict(state)
    trained.network.eval()
    right = []
    with torch.no_grad():
        for batch in trained.images.view_loader("val", 0, rank=0, world_size=1):
            right += (trained.network(batch["image"]).argmax(1) == batch["target"])[batch["valid"]].tolist()
    return sum(right) / len(right)


def test_probe_is_kept_apart_with_the_pretrained_backbone(ruined: Trained) -> None:
    probe = state_of(ruined.run.probe_checkpoint)
    assert all(torch.equal(probe[f"backbone.{name}"], value) for name, value in ruined.pretrained.items())
    assert not torch.equal(probe["head.1.weight"], state_of(ruined.run.last_checkpoint)["head.1.weight"])


def test_probe_is_kept_where_fine_tuning_is_worse(ruined: Trained) -> None:
    kept = ruined.keep(0.5)
    probe, last = state_of(ruined.run.probe_checkpoint), state_of(ruined.run.last_checkpoint)
    assert accuracy(ruined, last) < accuracy(ruined, probe)
    assert (kept.what, kept.share, kept.phase) == ("probe", 0.0, 0)
    assert all(torch.equal(kept.state[name], value) for name, value in probe.items())
    assert "the probe, since fine-tuning is not better" in kept.summary_line("val/accuracy")


def test_candidates_are_scored_as_their_weights_score(ruined: Trained) -> None:
    kept = ruined.keep(0.25, 0.5)
    ends = [state_of(path) for path in (ruined.run.probe_checkpoint, ruined.run.last_checkpoint)]
    assert [each.share for each in kept.candidates] == [0.0, 0.25, 0.5, 1.0]
    for each in kept.candidates:
        assert each.value == pytest.approx(accuracy(ruined, interpolate_weights(*ends, each.share)))
    assert kept.record()["candidates"][1]["share"] == 0.25


def test_what_is_kept_is_the_best_by_any_monitored_value(ruined: Trained) -> None:
    losses = ruined.keep(0.5, mode="min", monitor="val/loss")
    assert losses.share == min(losses.candidates, key=lambda each: each.loss).share
    assert all(each.value == each.loss for each in losses.candidates)


def test_nothing_is_compared_without_a_probe_or_without_shares(ruined: Trained, tmp_path: Path) -> None:
    assert ruined.keep().candidates == ()
    alone = Run(tmp_path)
    alone.checkpoints.mkdir(parents=True)
    alone.best_checkpoint.write_bytes(ruined.run.best_checkpoint.read_bytes())
    kept = select_weights(alone, ruined.network, STRATEGY, ruined.images, ruined.recipe, CPU, mode="max", shares=[0.5])
    assert kept.candidates == () and kept.share is None


def test_interpolation_is_linear_and_exact_at_its_ends() -> None:
    probe = {"weight": torch.tensor([0.0, 0.1]), "count": torch.tensor(3)}
    tuned = {"weight": torch.tensor([1.0, 0.7]), "count": torch.tensor(9)}
    half = interpolate_weights(probe, tuned, 0.25)
    torch.testing.assert_close(half["weight"], torch.tensor([0.25, 0.25]))
    assert half["count"] == 9
    assert torch.equal(interpolate_weights(probe, tuned, 0.0)["weight"], probe["weight"])
    assert torch.equal(interpolate_weights(probe, tuned, 1.0)["weight"], tuned["weight"])


@pytest.mark.parametrize(
    ("candidates", "mode", "share"),
    [
        ([(0, 0.9, 0.3), (0.5, 0.95, 0.4), (1, 0.94, 0.1)], "max", 0.5),
        ([(0, 0.9, 0.3), (0.5, 0.9, 0.2), (1, 0.9, 0.4)], "max", 0.5),  # equal values: the least loss
        ([(0, 0.9, 0.3), (1, 0.9, 0.3)], "max", 0),  # all equal: the probe
        ([(0, 0.3, 0.3), (1, 0.2, 0.2)], "min", 1),
        ([(0, 0.3, 0.3), (0.5, 0.29, 0.29, 0.02), (1, 0.27, 0.27, 0.02)], "min", 1),  # beyond chance
        ([(0, 0.3, 0.3), (1, 0.29, 0.29, 0.02)], "min", 0),
        ([(0, 0.9, 0.3), (1, float("nan"), 0.1)], "max", 0),
        ([(0, 0.9, 0.3), (1, 0.95, float("nan"))], "max", 0),
    ],
)
def test_best_candidate(candidates: list[tuple[float, ...]], mode: str, share: float) -> None:
    assert best_candidate([WeightCandidate(*each) for each in candidates], mode).share == share


@pytest.mark.parametrize("shares", [[0], [1.0], [0.5, 2], ["half"], [True]])
def test_shares_that_make_no_sense_are_refused(shares: list[object]) -> None:
    with pytest.raises(ConfigError, match="between 0"):
        check_shares(shares)


@pytest.mark.parametrize(
    ("error", "value", "share"), [(0.004, 0.9, 0.5), (0.006, 0.9, 0.0), (0.006, 0.95, 0.5), (0.0, 0.8, 0.0)]
)
def test_weights_take_the_place_of_the_probe_beyond_chance_alone(error: float, value: float, share: float) -> None:
    other = WeightCandidate(0.5, value, 0.245, error)
    assert best_candidate([WeightCandidate(0.0, 0.9, 0.250), other], "max").share == share


def test_the_error_is_that_of_the_mean_difference_from_the_probe(ruined: Trained) -> None:
    (tuned,) = [each for each in ruined.keep(0.5).candidates if each.share == 1]
    losses = []
    for path in (ruined.run.probe_checkpoint, ruined.run.last_checkpoint):
        ruined.network.load_state_dict(state_of(path))
        ruined.network.eval()
        parts = []
        with torch.no_grad():
            for batch in ruined.images.view_loader("val", 0, rank=0, world_size=1):
                each = torch.nn.functional.cross_entropy(
                    ruined.network(batch["image"]), batch["target"], reduction="none"
                )
                parts.append(each[batch["valid"]])
        losses.append(torch.cat(parts))
    difference = losses[1] - losses[0]
    assert tuned.error == pytest.approx(float(difference.std()) / len(difference) ** 0.5, rel=1e-3)
