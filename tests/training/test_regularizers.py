"""What holds a network back does to weights and gradients what its formula says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from configured import settings_for
from pytorch_lightning.callbacks import EarlyStopping
from timm.layers import DropPath
from tiny import strategy_config, tiny_images, tiny_table
from torch import nn

from finetune.config.settings.phases import Phase, build_strategy
from finetune.config.settings.training_groups import OptimizerSettings, Schedule, TrainerSettings
from finetune.models.heads.fit import HeadExamples, fit_head
from finetune.models.heads.modules import HeadSpec, build_head
from finetune.models.heads.settings import SolverSettings
from finetune.models.network import Network, build_network
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.training.callbacks.checkpoints import Checkpoints, network_state, read_checkpoint
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import Recipe, fit
from finetune.training.losses import CrossEntropy
from finetune.training.optimizers import build_optimizer, decayed_parameters, parameter_groups
from finetune.training.regularizers import Regularizer, zeros
from finetune.training.resume import ResumePoint

PHASE = Phase("all", "all")


def network_of(**options: Any) -> Network:
    torch.manual_seed(0)
    return build_network("test_resnet", num_classes=3, weights="none", image_size=32, **options)


def test_the_penalty_pulls_towards_the_pretrained_weights_and_the_head_towards_zero() -> None:
    network = network_of()
    regularizer = Regularizer(l2_sp=0.3).towards(network)
    start = {name: value.detach().clone() for name, value in network.named_parameters()}
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight))
    penalty = regularizer.penalty(network)
    assert penalty is not None
    penalty.backward()
    decayed = decayed_parameters(network)
    for name, weight in network.named_parameters():
        if name not in decayed:
            assert weight.grad is None and weight.ndim == 1
            continue
        origin = 0.0 if name.startswith("head.") else start[name]
        torch.testing.assert_close(weight.grad, 0.3 * (weight.detach() - origin))
    distance = sum(float((weight.detach() - (0 if name.startswith("head.") else start[name])).square().sum())
                   for name, weight in decayed.items())  # fmt: skip
    assert float(penalty.detach()) == pytest.approx(0.15 * distance, rel=1e-5)
    assert regularizer.notes(network) == {"train/l2_sp": pytest.approx(0.15 * distance, rel=1e-5)}


def test_frozen_weights_are_not_penalised() -> None:
    network = network_of()
    regularizer = Regularizer(l2_sp=1.0).towards(network)
    network.backbone.requires_grad_(False)
    penalty = regularizer.penalty(network)
    assert float(penalty) == pytest.approx(0.5 * float(network.head[-1].weight.square().sum()))  # type: ignore[arg-type]
    assert Regularizer().penalty(network) is None


def test_weights_of_the_head_shrink_by_rate_times_strength_and_stop_at_zero() -> None:
    network = network_of()
    groups = parameter_groups(network, PHASE, lr=0.1, weight_decay=0.0)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    Regularizer(l1=0.05).shrink(torch.optim.SGD(groups))
    for name, value in network.named_parameters():
        if name == "head.1.weight":
            expected = before[name].sign() * (before[name].abs() - 0.1 * 0.05).clamp(min=0)
            torch.testing.assert_close(value.detach(), expected)
            assert zeros(network.head) == pytest.approx(float((before[name].abs() <= 0.005).double().mean()))
        else:
            assert torch.equal(value, before[name])


@pytest.mark.parametrize(("name", "lr"), [("adamw", 0.1), ("sgd", 0.3)])
def test_steps_that_shrink_lead_to_the_optimum_of_the_penalised_loss(name: str, lr: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(80, 12, generator=generator)
    targets = (features[:, :3] + 0.5 * torch.randn(80, 3, generator=generator)).argmax(
        1
    )  # of 3, which have one optimum
    spec = HeadSpec()
    solved = build_head(spec, 12, 3)
    fit_head(solved, spec, HeadExamples(features, targets, "multiclass", 3), SolverSettings("proximal", 0.0, 0.03))
    head = build_head(spec, 12, 3)
    weight, bias = head[1].weight, head[1].bias
    parts = {"head": weight, "head/no_decay": bias}
    groups = [{"params": [part], "name": key, "lr": lr, "weight_decay": 0.0} for key, part in parts.items()]
    optimizer = build_optimizer(name, groups, {"momentum": 0.0, "nesterov": False} if name == "sgd" else {})  # type: ignore[arg-type]
    for _ in range(600):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(features), targets).backward()
        optimizer.step()
        Regularizer(l1=0.03).shrink(optimizer)
    torch.testing.assert_close(weight.detach(), solved[1].weight.detach(), atol=0.02, rtol=0.02)
    assert zeros(head) == zeros(solved) > 0.5


@pytest.mark.parametrize("name", ["adamw", "sgdw"])
def test_decoupled_decay_shrinks_weights_alone(name: str) -> None:
    network = network_of()
    groups = parameter_groups(network, PHASE, lr=0.1, weight_decay=0.2)
    optimizer = build_optimizer(name, groups, {})
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    decayed = decayed_parameters(network)
    for key, value in network.named_parameters():
        torch.testing.assert_close(value.detach(), before[key] * (1 - 0.1 * 0.2 if key in decayed else 1))


def test_drop_path_leaves_blocks_out_more_often_with_depth() -> None:
    network = build_network("test_vit", num_classes=3, weights="none", image_size=160, drop_path_rate=0.3)
    rates = [module.drop_prob for module in network.modules() if isinstance(module, DropPath)]
    assert rates == sorted(rates) and rates[-1] == pytest.approx(0.3)
    images = torch.ones(4000, 2)
    kept = DropPath(0.3)(images)[:, 0]
    assert sorted(set(kept.tolist())) == pytest.approx([0, 1 / 0.7])
    assert float((kept > 0).float().mean()) == pytest.approx(0.7, abs=0.03)


def train(folder: Path, *callbacks: pl.Callback, epochs: int, **changes: Any) -> tuple[Network, list[dict[str, Any]]]:
    """Train a head by the real trainer, by the loss on validation; return the network and its rows by epoch."""
    pl.seed_everything(0, verbose=False)
    table = tiny_table(train=40, val=20, test=4)
    network = build_network("test_resnet", num_classes=10, weights="none", image_size=32)
    settings = settings_for(TrainerSettings, "cpu", 1, gradient_clip=changes.pop("gradient_clip", None))
    optimizer, schedule = settings_for(OptimizerSettings, "sgd", 1.0, 0.0), settings_for(Schedule, "constant", 0.0, 1.0)
    recipe = Recipe(CrossEntropy(), optimizer, schedule, settings, monitor="val/loss")
    strategy = build_strategy(strategy_config("frozen"))
    strategy = replace(strategy, phases=(replace(strategy.phases[0], epochs=epochs),))
    run = Run(folder)
    run.path.mkdir(parents=True, exist_ok=True)
    fit(network, strategy, tiny_images(table, network), replace(recipe, **changes), place=ResumePoint(),
        metrics=MetricsCallback(table.task, 10, RunHistory(run.history_file), 1),
        checkpoints=Checkpoints(run, "val/loss", "min"), callbacks=lambda: callbacks, loggers=[])  # fmt: skip
    return network, [row for row in RunHistory(run.history_file).read() if "val/loss" in row]


def test_gradients_are_clipped_to_their_norm(tmp_path: Path) -> None:
    options = settings_for(OptimizerSettings, "sgd", 1.0, 0.0, {"momentum": 0.0, "nesterov": False})
    torch.manual_seed(0)
    network, _ = train(tmp_path, epochs=1, gradient_clip=0.01, optimizer=options)
    pl.seed_everything(0, verbose=False)
    start = build_network("test_resnet", num_classes=10, weights="none", image_size=32)
    moves = [after - before for after, before in zip(network.head.parameters(), start.head.parameters(), strict=True)]
    assert float(nn.utils.get_total_norm(moves).detach()) == pytest.approx(0.01, rel=1e-3)  # type: ignore[attr-defined]


def test_early_stopping_ends_a_phase_and_the_best_epoch_is_what_is_kept(tmp_path: Path) -> None:
    worsening = settings_for(OptimizerSettings, "sgd", 30.0, 0.0)
    _, rows = train(tmp_path, EarlyStopping("val/loss", patience=2, mode="min"), epochs=30, optimizer=worsening)
    losses = [row["val/loss"] for row in rows]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 30
    checkpoint = read_checkpoint(Run(tmp_path).best_checkpoint)
    assert checkpoint["finetune"]["epochs"] == best + 1
    kept = network_state(checkpoint, averaged=True)
    stopped = read_checkpoint(Run(tmp_path).last_checkpoint)
    assert stopped["finetune"]["finished"] and stopped["finetune"]["epochs"] == len(losses)
    last = network_state(stopped, averaged=True)
    assert not torch.equal(kept["head.1.weight"], last["head.1.weight"])
    again, _ = train(tmp_path / "again", epochs=best + 1, optimizer=worsening)
    assert torch.equal(again.head[1].weight, kept["head.1.weight"])  # type: ignore[arg-type]
