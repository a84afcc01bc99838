"""Head-only trials: in one process they score what their ordinary runs score, and only they are run so."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import finetune

from finetune.config.compose import register
from finetune.config.resolve import stored_settings
from finetune.runs.run import Run
from finetune.search.command_line import read_request
from finetune.search.head_only.eligibility import obstacles
from finetune.search.head_only.head_trials import load_trainer, run_trial
from finetune.search.spaces.sample_configs import TrialConfigs
from finetune.search.study.samplers import SearchObjective
from finetune.search.study.trials import read_result
from finetune.search.sweep_plan import SweepPlan, make_sweep_plan

register()
TINY = ["model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "trainer=cpu", "trainer.threads=1",
        "logger=none", "bootstrap=0", "strategy=frozen", "strategy.epochs=4", "report=false",
        "explain.images=0"]  # fmt: skip


def plan(*words: str) -> SweepPlan:
    """Return the plan of a command line."""
    return make_sweep_plan(read_request(["--config-name", "sweep", *words]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["head=linear", "head.dropout=0.3", "strategy.lr=1e-2"],
        ["head=mlp", "head.hidden=32", "head.standardize=true", "monitor=val/loss", "mode=min", "features.views=2"],
        ["head=logistic", "head.l2=1e-3", "loss.label_smoothing=0", "monitor=val/f1_macro"],
    ],
)
def test_a_trial_in_this_process_scores_what_its_run_scores(tmp_path: Path, words: list[str]) -> None:
    found = finetune(*TINY, *words, f"cache.dir={tmp_path / 'cache'}", folder=tmp_path)
    assert found.returncode == 0, found.stderr
    (run,) = Run.all(tmp_path / "runs")
    document = json.loads(run.metrics_file.read_text())
    changes = document["calibration"]["val"]["loss"]
    assert changes["after"] == document["val"]["loss"]["value"] <= changes["before"]
    objectives = [SearchObjective(name, "max") for name in ("val/accuracy", "val/loss", "val/roc_auc")]
    as_run = read_result(run, objectives)
    assert as_run is not None
    assert as_run.values[1] == changes["before"]
    settings = stored_settings(run.config)
    found = run_trial(load_trainer(settings), settings, objectives)
    assert list(found.values) == pytest.approx(as_run.values, abs=1e-5)


def test_quick_configurations_are_those_that_hydra_composes() -> None:
    made = plan("space=head", "strategy=frozen", "optimizer=sgd", "seed=1,2")
    configs = TrialConfigs(made.request, made.space)
    values: dict[str, Any] = {
        "head": "mlp", "strategy.lr": 0.01, "head.dropout": 0.25, "head.standardize": True, "seed": 2,
        "optimizer.weight_decay": 0.1, "loss.label_smoothing": 0.125, "head.hidden": 64,
    }  # fmt: skip
    for each in (values, {**values, "head": "linear", "strategy.lr": 0.02}):
        assert configs.settings(each).document == made.request.trial(made.space.overrides(each)).document


@pytest.mark.parametrize(
    ("words", "obstacle"),
    [
        (["space=head", "strategy=frozen"], None),
        (["space=head_lr", "strategy=frozen", "seed=0,1"], None),
        (["space=head_lr", "strategy=frozen", "seed=0,1", "model.weights=none"], "random"),
        (["optimizer.lr=1e-3,1e-4"], "lp_ft moves more"),
        (["space=head_lr", "strategy=frozen", "augment=light,none"], "augment varies"),
        (["strategy=frozen,lp_ft"], "strategy varies"),
        (["space=head_lr", "strategy=frozen", "strategy.features=none,cached"], "moves more"),
        (["space=head_lr", "strategy=frozen", "callbacks=ema"], "callbacks.ema"),
        (["space=head_lr", "strategy=frozen", "trainer.devices=2"], "trainer.devices=2"),
        (["space=head_lr", "strategy=frozen", "calibration=vector"], None),
        (["space=head_lr", "strategy=frozen", "sweep.budget.parameters=1e9"], "budget"),
    ],
)
def test_only_trials_that_differ_in_their_head_share_a_process(words: list[str], obstacle: str | None) -> None:
    made = plan(*words)
    found = obstacles(made, TrialConfigs(made.request, made.space))
    assert (found == []) if obstacle is None else any(obstacle in each for each in found), found


@pytest.mark.slow
def test_a_head_only_sweep_runs_here_and_gives_its_best_a_run(tmp_path: Path) -> None:
    words = [word for word in TINY if word != "model.weights=none"]
    found = finetune(
        "sweep", *words[1:], "strategy.lr='tag(log,interval(1e-3,1e-1))'".replace("'", ""), "sweep.trials=5",
        "sweep.page=false", folder=tmp_path,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "all trials run in this process" in found.stderr
    (record,) = tmp_path.glob("sweeps/*/*/sweep.json")
    (best,) = json.loads(record.read_text())["best"]
    run = Run(Path(best["folder"]))
    assert run.status == "finished"
    document = json.loads(run.metrics_file.read_text())
    assert document["val"]["accuracy"]["value"] == pytest.approx(best["values"]["val/accuracy"])
    assert document["test"]
    assert len(list(record.parent.glob("trials/*"))) == 1
