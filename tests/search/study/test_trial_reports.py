"""A run that is a trial: it reports, and when it is behind all its ranks end, and its folder and W&B say so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import wandb_log
from command import finetune

from finetune.runs.run import Run
from finetune.search.study.samplers import SearchObjective, SearchSettings
from finetune.search.study.storage import open_storage
from finetune.search.study.study import create_study

TINY = ["model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "trainer=cpu", "trainer.threads=1",
        "bootstrap=0", "report=false", "explain.images=0", "strategy=lp_ft",
        "strategy.head_epochs=2", "strategy.epochs=3", "trainer.limit_batches=2"]  # fmt: skip


def told_to_be_a_trial(folder: Path, *, pruned: bool) -> dict[str, str]:
    """Return the variables of a trial in a study in which another trial was perfect from its second epoch on."""
    storage = str(folder / "journal.log")
    settings = SearchSettings((SearchObjective("val/accuracy", "max"),))
    study = create_study(open_storage(storage), "study", settings)
    study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values={1: 2.0, 3: 2.0} if pruned else {1: -1.0}))
    trial = study.ask()
    message = {
        "storage": storage, "study": "study", "number": trial.number, "metric": "val/accuracy", "pruner": "median",
        "pruner_options": {"n_startup_trials": 1, "n_warmup_steps": 3},
    }  # fmt: skip
    return {"FINETUNE_TRIAL": json.dumps(message)}


def reports(folder: Path) -> dict[int, float]:
    """Return what the trial has reported."""
    study = optuna.load_study(study_name="study", storage=open_storage(str(folder / "journal.log")))
    return dict(study.get_trials()[1].intermediate_values)


@pytest.mark.slow
def test_a_pruned_run_ends_well_without_an_evaluation_and_says_so(tmp_path: Path) -> None:
    found = finetune(*TINY, folder=tmp_path, **told_to_be_a_trial(tmp_path, pruned=True))
    assert found.returncode == 0, found.stderr
    (run,) = Run.all(tmp_path / "runs")
    assert run.status == "pruned"
    assert run.record["pruned"]["epoch"] == 3, "epochs are counted over all phases"
    assert list(reports(tmp_path)) == [0, 1, 2, 3]
    assert not run.metrics_file.exists()
    assert "behind" in found.stdout
    (read,) = wandb_log.read_logs(run.path)
    assert read.summary["pruned"] is True
    assert read.exit_code == 0


@pytest.mark.slow
def test_a_trial_that_keeps_up_runs_to_its_end(tmp_path: Path) -> None:
    found = finetune(*TINY, "logger=none", folder=tmp_path, **told_to_be_a_trial(tmp_path, pruned=False))
    assert found.returncode == 0, found.stderr
    (run,) = Run.all(tmp_path / "runs")
    assert run.status == "finished"
    assert list(reports(tmp_path)) == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_all_ranks_of_a_pruned_run_end(tmp_path: Path) -> None:
    words = [word for word in TINY if word != "trainer=cpu"]
    command = [sys.executable, "-m", "finetune", *words, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2",
               "logger=none"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **told_to_be_a_trial(tmp_path, pruned=True)}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    (run,) = Run.all(tmp_path / "runs")
    assert run.status == "pruned"
    assert list(reports(tmp_path)) == [0, 1, 2, 3], "one rank reports"
