"""Solved heads in a run: one epoch at rest gives the optimum, and what comes after goes on from it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from configured import settings_for
from pytorch_lightning.callbacks import EMAWeightAveraging
from sklearn.linear_model import LogisticRegression
from tiny import strategy_config, tiny_images, tiny_table

from finetune.config.settings.phases import build_strategy
from finetune.config.settings.training_groups import OptimizerSettings, Schedule, TrainerSettings
from finetune.errors import ConfigError
from finetune.models.bundle import load_bundle, save_bundle
from finetune.models.heads.modules import HeadSpec, standardize_layer
from finetune.models.heads.settings import SolverSettings
from finetune.models.network import Network, build_network
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.training.callbacks.checkpoints import Checkpoints, network_state, read_checkpoint
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import Recipe, fit, rehearse
from finetune.training.losses import CrossEntropy
from finetune.training.resume import ResumePoint, find_resume_point
from finetune.training.solved_head import HeadPlan

SPEC = HeadSpec(standardize=True)
L2 = SolverSettings("lbfgs", l2=0.01)


def network_of(spec: HeadSpec) -> Network:
    torch.manual_seed(0)
    return build_network("test_resnet", num_classes=10, weights="none", image_size=32, head=spec)


def train(
    folder: Path, plan: HeadPlan, strategy: str = "frozen", *, lr: float = 1e-3, callbacks: Any = list
) -> tuple[Network, Any, Checkpoints]:
    """Train a small network by the real trainer; return it, its images and its checkpoints."""
    pl.seed_everything(0, verbose=False)
    table = tiny_table(train=80, val=20, test=8)
    network = network_of(plan.spec)
    images = tiny_images(table, network)
    recipe = Recipe(
        CrossEntropy(),
        settings_for(OptimizerSettings, lr=lr),
        settings_for(Schedule, "constant", 0.0, 1.0),
        settings_for(TrainerSettings, "cpu", 1),
        head=plan,
    )
    run = Run(folder)
    run.path.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(run, "val/accuracy", "max")
    metrics = MetricsCallback(table.task, 10, RunHistory(run.history_file), 1)
    fit(network, build_strategy(strategy_config(strategy)), images, recipe, place=ResumePoint(), metrics=metrics,
        checkpoints=checkpoints, callbacks=callbacks, loggers=[])  # fmt: skip
    return network, images, checkpoints


@torch.no_grad()
def features_of(network: Network, images: Any) -> tuple[np.ndarray, np.ndarray]:
    batches = list(images.loader("train", augmented=False))
    values = torch.cat([network.backbone.eval()(batch["image"]) for batch in batches])
    return values.numpy().astype(np.float64), torch.cat([batch["target"] for batch in batches]).numpy()


def test_the_head_is_the_optimum_of_the_features(tmp_path: Path) -> None:
    network, images, _ = train(tmp_path, HeadPlan(SPEC, L2))
    values, targets = features_of(network, images)
    deviation = values.std(0)
    values = (values - values.mean(0)) / np.where(deviation > 1e-6 * np.abs(values.mean(0)), deviation, 1.0)
    reference = LogisticRegression(C=1 / (len(values) * 0.01), tol=1e-10, max_iter=10_000).fit(values, targets)
    with torch.no_grad():
        found = torch.softmax(network.head(torch.from_numpy(features_of(network, images)[0]).float()), 1).numpy()
    np.testing.assert_allclose(found, reference.predict_proba(values), atol=2e-3)


def test_the_backbone_stands_still_and_one_epoch_is_recorded(tmp_path: Path) -> None:
    before = network_of(SPEC).backbone.state_dict()
    network, _, checkpoints = train(tmp_path, HeadPlan(SPEC, L2))
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())
    rows = RunHistory(checkpoints.run.history_file).read()
    assert [row["epoch"] for row in rows if "val/accuracy" in row] == [0.0]
    best = network_state(read_checkpoint(checkpoints.run.best_checkpoint), averaged=True)
    assert torch.equal(best["head.2.weight"], network.head[-1].weight)  # type: ignore[arg-type]


def test_fine_tuning_goes_on_from_the_solved_head(tmp_path: Path) -> None:
    probed, _, _ = train(tmp_path / "probe", HeadPlan(SPEC, L2))
    tuned, _, checkpoints = train(tmp_path / "tuned", HeadPlan(SPEC, L2), "lp_ft", lr=1e-12)
    rows = [row for row in RunHistory(checkpoints.run.history_file).read() if "val/loss" in row]
    assert [row["phase"] for row in rows] == ["probe", "finetune", "finetune"]
    torch.testing.assert_close(tuned.head.state_dict(), probed.head.state_dict())


def test_a_run_that_stopped_after_the_solved_phase_resumes_behind_it(tmp_path: Path) -> None:
    plan = HeadPlan(SPEC, L2)
    network, _, checkpoints = train(tmp_path, plan)
    place = find_resume_point(
        checkpoints, network, build_strategy(strategy_config("frozen")), settings_for(OptimizerSettings)
    )
    assert (place.phase, place.epochs, place.steps) == (1, 1, 0)


def test_an_average_over_steps_leaves_the_solved_head_alone(tmp_path: Path) -> None:
    plain, _, _ = train(tmp_path / "a", HeadPlan(SPEC, L2))
    averaged, _, checkpoints = train(
        tmp_path / "b", HeadPlan(SPEC, L2), callbacks=lambda: [EMAWeightAveraging(decay=0.9)]
    )
    best = network_state(read_checkpoint(checkpoints.run.best_checkpoint), averaged=True)
    assert torch.equal(best["head.2.weight"], plain.head[-1].weight)  # type: ignore[arg-type]
    assert torch.equal(averaged.head[-1].weight, plain.head[-1].weight)  # type: ignore[arg-type]


def test_a_trained_head_gets_its_statistics_first(tmp_path: Path) -> None:
    network, images, _ = train(tmp_path, HeadPlan(SPEC))
    layer = standardize_layer(network.head)
    values, _ = features_of(network, images)
    assert layer is not None
    np.testing.assert_allclose(layer.mean.numpy(), values.mean(0), rtol=1e-4, atol=1e-5)
    deviation = np.where(values.std(0) > 1e-6 * np.abs(values.mean(0)), values.std(0), 1.0)
    np.testing.assert_allclose(layer.std.numpy(), deviation, rtol=1e-3, atol=1e-5)


def test_what_is_shipped_is_a_plain_network_with_the_same_outputs(tmp_path: Path) -> None:
    network, images, _ = train(tmp_path, HeadPlan(SPEC, L2))
    save_bundle(network, tuple("0123456789"), "multiclass", tmp_path / "model")
    shipped = load_bundle(tmp_path / "model").network
    batch = next(iter(images.loader("val", augmented=False)))["image"]
    with torch.no_grad():
        torch.testing.assert_close(shipped(batch), network.eval()(batch), atol=1e-4, rtol=1e-4)
    assert standardize_layer(shipped.head) is None


@pytest.mark.parametrize("plan", [HeadPlan(SPEC), HeadPlan(HeadSpec(), L2)])
def test_a_head_that_needs_features_needs_a_phase_at_rest(tmp_path: Path, plan: HeadPlan) -> None:
    recipe = Recipe(
        CrossEntropy(),
        settings_for(OptimizerSettings),
        settings_for(Schedule, "constant", 0.0, 1.0),
        settings_for(TrainerSettings, "cpu", 1),
        head=plan,
    )
    with pytest.raises(ConfigError, match="needs a phase on cached features"):
        rehearse(network_of(plan.spec), build_strategy(strategy_config("full")), recipe, tmp_path)
