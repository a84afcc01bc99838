"""A cross-validation is one experiment: images are scored by models that never saw them, and its models are one run."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import finetune
from configured import settings_for
from crossed import SMALL
from hydra.core.override_parser.overrides_parser import OverridesParser
from members import count_members

from finetune.cli import with_resumed_folder
from finetune.config.compose import register
from finetune.config.settings.data_groups import FoldSettings
from finetune.ensembles.crossval.crossval_plan import OWN, make_crossval_plan
from finetune.ensembles.crossval.fold_jobs import FoldJobs, override_of
from finetune.evaluation.predictions import Predictions
from finetune.models.bundle import load_bundle
from finetune.models.ensemble_network import JoinedHead
from finetune.runs.run import Run
from finetune.search.command_line import read_request

FROZEN = ["strategy=frozen", "strategy.epochs=3", "head.standardize=true"]


def crossval(*words: str, photos: Path, folder: Path) -> Run:
    """Run the command and return the newest run."""
    found = finetune("crossval", *SMALL, f"data.root={photos}", f"cache.dir={folder / 'cache'}", *words, folder=folder)
    assert found.returncode == 0, found.stderr
    run = Run.find("last", folder / "runs")
    assert run.record["crossval"]
    return run


@pytest.fixture(scope="module")
def here(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A cross-validation in one process."""
    return crossval(*FROZEN, "cv.folds=2", photos=photos, folder=tmp_path_factory.mktemp("here"))


def test_each_image_is_predicted_once_by_a_model_that_never_saw_it(here: Run) -> None:
    unseen, tested = (Predictions.load(here.predictions_file(split)) for split in ("val", "test"))
    assert unseen.num == len(set(unseen.ids)) == 60
    assert tested.num == 24 and not set(tested.ids) & set(unseen.ids)
    cv = json.loads(here.metrics_file.read_text())["cv"]
    assert cv["folds"] == 2 and cv["n"] == [30, 30] and cv["learnt"] == [30, 30] and cv["out_of_fold"] == "val"
    pooled = json.loads(here.metrics_file.read_text())["val"]["accuracy"]["value"]
    assert np.mean(cv["metrics"]["accuracy"]["values"]) == pytest.approx(pooled)
    assert here.status == "finished"


def test_its_models_are_an_ensemble_that_is_a_run_like_any_other(here: Run, photos: Path, tmp_path: Path) -> None:
    bundle = load_bundle(here.model_dir)
    assert count_members(bundle.network) == 2
    again = finetune("evaluate", f"run={here.path}", "bootstrap=20", "device=cpu", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    (evaluation,) = (here.path / "evaluations").iterdir()
    one, two = (
        Predictions.load(folder / "predictions" / "test.parquet").probabilities for folder in (here.path, evaluation)
    )
    assert np.allclose(one, two, atol=1e-5)
    said = finetune(
        "predict", f"run={here.path}", f"input={photos / 'test' / 'digit 0'}", "device=cpu", folder=tmp_path
    )
    assert said.returncode == 0, said.stderr
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(lines) == 9 and lines[0].endswith("ood_score,is_ood,ood,unlike_training")
    assert "Unlike the training images (knn" in said.stdout
    unlike = json.loads(here.metrics_file.read_text())["ood"]
    assert (unlike["fitted_on"], unlike["held_out"], set(unlike["accepted"])) == (48, 12, {"val", "test"})
    page = finetune("report", f"run={here.path}", folder=tmp_path)
    assert page.returncode == 0, page.stderr
    assert "Cross-validation" in here.report_file.read_text()


def test_its_models_can_be_joined_by_other_rules(here: Run, tmp_path: Path) -> None:
    alike, voted, soup = (joined(here, method, tmp_path) for method in ("mean", "vote", "soup"))
    whole, again = (load_bundle(run.model_dir).network for run in (here, alike))
    features = torch.randn(7, whole.num_features)
    members, joint = whole.head[0], again.head[0]
    assert isinstance(members, JoinedHead) and isinstance(joint, JoinedHead)
    torch.testing.assert_close(joint.scores(features), members.scores(features))
    assert joint.weights.tolist() == [0.5, 0.5]
    assert load_bundle(alike.model_dir).detector is not None
    assert np.unique(Predictions.load(voted.predictions_file("test")).probabilities.round(4)).size <= 4
    assert count_members(load_bundle(soup.model_dir).network) == 1


def joined(run: Run, method: str, folder: Path) -> Run:
    """Join the folds of a cross-validation."""
    found = finetune(
        "ensemble", f"cv={run.path}", f"method={method}", f"folder={folder}/{method}", "bootstrap=20", "report=false",
        "device=cpu", folder=folder,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return Run.find("last", folder / method)


@pytest.mark.slow
def test_folds_in_one_process_are_those_of_runs_of_their_own(here: Run, photos: Path, tmp_path: Path) -> None:
    words = [*FROZEN, "cv.folds=2", "cv.in_process=false", "pool.devices=2"]
    runs = crossval(*words, photos=photos, folder=tmp_path)
    for split in ("val", "test"):
        one, two = (Predictions.load(run.predictions_file(split)) for run in (here, runs))
        assert one.ids.tolist() == two.ids.tolist()
        assert np.allclose(one.probabilities, two.probabilities, atol=1e-4)
    folds = [Run(runs.path / "folds" / name) for name in ("0", "1")]
    assert {fold.config["group"] for fold in folds} == {f"{runs.path.parent.name}/{runs.path.name}"}
    assert all(fold.status == "finished" and fold.predictions_file("test").is_file() for fold in folds)
    assert Run.all(tmp_path / "runs") == [] or [run.path for run in Run.all(tmp_path / "runs")] == [runs.path]
    # a fold that is gone is the only one that is run again
    runs.update(status="interrupted")
    folds[1].update(status="failed")
    first = os.stat(folds[0].record_file).st_mtime_ns
    found = finetune("crossval", f"resume={runs.path}", folder=tmp_path)
    assert found.returncode == 0, found.stderr
    assert os.stat(folds[0].record_file).st_mtime_ns == first
    assert Run(runs.path).status == "finished"
    vote = finetune("ensemble", f"cv={runs.path}", "method=vote", "bootstrap=20", "report=false", folder=tmp_path)
    assert vote.returncode == 0, vote.stderr
    assert count_members(load_bundle(Run.find("last", tmp_path / "runs").model_dir).network) == 2
    refused = finetune("ensemble", f"cv={runs.path}", "method=greedy", folder=tmp_path)
    assert refused.returncode == 2 and "learns from validation images" in refused.stderr


def test_what_varies_is_searched_in_each_fold_and_all_images_can_be_crossed(photos: Path, tmp_path: Path) -> None:
    words = ["strategy=frozen", "head=logistic", "head.l2=1e-3,10", "sweep=grid", "cv.folds=2", "cv.inner=2",
             f"data.root={photos / 'train'}", "data.splits.test=0"]  # fmt: skip
    run = crossval(*words, photos=photos, folder=tmp_path)
    cv = json.loads(run.metrics_file.read_text())["cv"]
    assert [len(settings) for settings in cv["settings"]] == [1, 1]
    assert all(settings[0].startswith("head.l2=") for settings in cv["settings"])
    assert cv["out_of_fold"] == "test" and not run.predictions_file("val").is_file()
    assert Predictions.load(run.predictions_file("test")).num == 60


def test_leaving_one_out_and_bagging_are_cross_validations_too(photos: Path, tmp_path: Path) -> None:
    left = crossval("strategy=frozen", "strategy.epochs=1", "cv=leave_one_out", photos=photos, folder=tmp_path)
    cv = json.loads(left.metrics_file.read_text())["cv"]
    assert cv["folds"] == 60 and cv["metrics"] == {}
    assert Predictions.load(left.predictions_file("val")).num == 60
    bagged = crossval(*FROZEN, "cv=bootstrap", "cv.folds=4", photos=photos, folder=tmp_path)
    cv = json.loads(bagged.metrics_file.read_text())["cv"]
    assert cv["folds"] == 4 and cv["metrics"]["accuracy"]["low"] is None
    assert 40 < cv["images"] <= 60 and all(30 <= learnt <= 45 for learnt in cv["learnt"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cv=stratifed"], "Did you mean 'stratified'"),
        (["cv=grouped"], "data.splits.group=COLUMN"),
        (["optimizer.lr=1e-3,1e-4"], "strategy=lp_ft moves more than the head"),
        (["strategy=full", "cv.in_process=true"], "strategy=full moves more than the head"),
        (["cv.folds=1"], "cv.folds=1 must be a whole number of 2 or more"),
        (["recipe=auto", "recipe.budget=1m"], "a cross-validation trains several"),
        (["cv.weights=skil"], "Did you mean 'skill'"),
        (["-m"], "runs many configurations by itself"),
    ],
)
def test_what_cannot_be_cross_validated_is_refused_in_a_line(
    words: list[str], said: str, photos: Path, tmp_path: Path
) -> None:
    found = finetune("crossval", *SMALL, f"data.root={photos}", *words, folder=tmp_path)
    assert found.returncode == 2
    assert said in found.stderr and "Traceback" not in found.stderr
    assert not (tmp_path / "runs").exists()


def test_a_recipe_chooses_once_for_all_folds(photos: Path, tmp_path: Path) -> None:
    words = ("strategy=frozen", "recipe=auto", "strategy.epochs=2", "cv.folds=2")
    found = finetune("crossval", *SMALL, f"data.root={photos}", *words, folder=tmp_path)
    assert found.returncode == 0, found.stderr
    run = Run.find("last", tmp_path / "runs")
    assert [each["set"] for each in run.record["recipe"]] == [
        "head.l2=cv",
        "loss.label_smoothing=0",
        "features.views=4",
    ]
    assert all(f"recipe: {each['set']} ({each['because']})" in found.stderr for each in run.record["recipe"])
    config = run.config
    assert (config["head"]["l2"], config["features"]["views"], config["recipe"]["name"]) == ("cv", 4, "none")


def test_a_fold_is_an_override_of_an_ordinary_run() -> None:
    assert override_of(settings_for(FoldSettings, "repeated", 4, 2, 7), 5) == (
        "data.splits.fold={kind:repeated,folds:4,repeats:2,seed:7,index:5}"
    )


def test_fold_that_was_interrupted_goes_on_in_a_folder_of_any_name(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    register()
    plan = make_crossval_plan(
        read_request(["--config-name", "crossval", *SMALL, "data.root=.", "strategy=full"], OWN, "crossval")
    )
    jobs = FoldJobs(plan, Run(tmp_path / "it's a \\run"), 2)
    new = jobs.arguments(0)
    run = Run.create(jobs.fold(0).path, config={}, command=[], seed=0)
    run.update(status="interrupted")
    run.last_checkpoint.touch()
    for arguments in (new, with_resumed_folder(jobs.arguments(0))):
        values = {each.key_or_group: each.value() for each in OverridesParser.create().parse_overrides(arguments)}
        assert values["hydra.run.dir"] == str(run.path)
        assert values.get("resume", str(run.path)) == str(run.path)


@pytest.mark.slow
def test_crossval_killed_within_a_fold_equals_an_uninterrupted_one(photos: Path, tmp_path: Path) -> None:
    words = [*SMALL, f"data.root={photos}", "strategy=full", "strategy.epochs=2", "cv.folds=2"]
    whole, broken = tmp_path / "whole", tmp_path / "it's broken"
    for folder in (whole, broken):
        folder.mkdir()
    assert finetune("crossval", *words, folder=whole).returncode == 0
    program = [sys.executable, "-m", "finetune", "crossval", *words]
    with (broken / "output").open("wb") as output:
        process = subprocess.Popen(program, cwd=broken, stdout=output, stderr=output, start_new_session=True)
    while not (kept := list(broken.glob("runs/*/*/folds/*/checkpoints/last.ckpt"))) and process.poll() is None:
        time.sleep(0.05)
    folds = {int(Run(path.parents[1]).record["pid"]) for path in kept}
    for number in (process.pid, *folds):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(number, signal.SIGKILL)
    process.wait()
    resumed = finetune("crossval", "resume=last", folder=broken)
    assert resumed.returncode == 0, resumed.stderr
    (run,), (expected,) = Run.all(broken / "runs"), Run.all(whole / "runs")
    assert sum("resumed" in Run(folder).record for folder in run.path.glob("folds/[01]")) >= 1
    assert run.metrics["test"] == expected.metrics["test"]
