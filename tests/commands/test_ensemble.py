"""An ensemble is a run like any other: stored as one file, scored as its members were, and held against the best."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import finetune
from configured import settings_for
from crossed import SMALL
from members import count_members

from finetune.config.settings.review_roots import EnsembleRootSettings
from finetune.ensembles.combine.members import check_candidates, find_members
from finetune.errors import ConfigError, DataError
from finetune.evaluation.predictions import Predictions
from finetune.models.bundle import load_bundle
from finetune.runs.run import Run


@pytest.fixture(scope="module")
def home(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a frozen run, a fine-tuned one that starts from the same weights, and one of other splits."""
    folder: Path = tmp_path_factory.mktemp("home")
    common = [*SMALL, f"data.root={photos}", "optimizer.lr=1e-3"]
    for name, words in {
        "probe": ["strategy=frozen", "strategy.epochs=4"],
        "tuned": ["strategy=full", "strategy.epochs=1", "strategy.batchnorm=train"],
        "other": ["strategy=frozen", "strategy.epochs=1", "data.splits.seed=5"],
        "snaps": ["strategy=frozen", "strategy.features=none", "strategy.epochs=4", "schedule.cycles=2",
                  "callbacks=snapshots"],
    }.items():  # fmt: skip
        found = finetune(*common, *words, f"hydra.run.dir=runs/{name}", folder=folder)
        assert found.returncode == 0, found.stderr
    return folder


def join(home: Path, *words: str) -> Run:
    """Join runs and return the ensemble."""
    found = finetune("ensemble", *words, "bootstrap=50", "report=false", "device=cpu", folder=home)
    assert found.returncode == 0, found.stderr
    run = Run.find("last", home / "runs")
    assert run.config["verb"] == "ensemble"
    return run


def stored(run: Run, split: str = "test") -> np.ndarray:
    return Predictions.load(run.predictions_file(split)).probabilities


def test_a_mean_is_that_of_its_members_and_its_one_file_says_the_same(home: Path) -> None:
    run = join(home, "runs=[probe,tuned]", "calibration=none")
    members = [stored(Run(home / "runs" / name)) for name in ("probe", "tuned")]
    assert np.allclose(stored(run), np.mean(members, axis=0), atol=1e-6)
    assert count_members(load_bundle(run.model_dir).network) == 2
    again = finetune("evaluate", f"run={run.path}", "bootstrap=20", "device=cpu", "report=false", folder=home)
    assert again.returncode == 0, again.stderr
    (evaluation,) = (run.path / "evaluations").iterdir()
    assert np.allclose(
        Predictions.load(evaluation / "predictions" / "test.parquet").probabilities, stored(run), atol=1e-4
    )
    against = json.loads(run.metrics_file.read_text())["ensemble"]["against_best"]
    assert {"low", "high", "difference"} <= set(against["metrics"]["accuracy"])


def test_members_on_one_backbone_say_which_images_are_unlike_those_of_training(home: Path) -> None:
    own = load_bundle((home / "runs" / "probe") / "model").detector
    shared = load_bundle(join(home, "runs=[probe,snaps]").model_dir).detector
    assert own is not None and shared is not None and shared.threshold == own.threshold
    assert load_bundle(join(home, "runs=[probe,tuned]").model_dir).detector is None


def test_greedy_selection_counts_members_by_what_validation_says(home: Path) -> None:
    run = join(home, "runs=[probe,tuned]", "method=greedy", "calibration=none")
    members = json.loads(run.metrics_file.read_text())["ensemble"]["members"]
    weights = [each["weight"] for each in members]
    assert sum(weights) == pytest.approx(1)
    parts = [stored(Run(home / "runs" / name)) for name in ("probe", "tuned")]
    assert np.allclose(stored(run), np.einsum("m,mnk->nk", weights, np.stack(parts)), atol=1e-6)
    kept = sum(weight > 0 for weight in weights)
    assert count_members(load_bundle(run.model_dir).network) == kept


def test_the_way_from_probe_to_fine_tuned_is_no_worse_on_validation_than_either_end(home: Path) -> None:
    run = join(home, "runs=[probe,tuned]", "method=wise_ft", "calibration=none")
    facts = json.loads(run.metrics_file.read_text())["ensemble"]
    tried = {tuple(np.round(each["weights"], 2)): each["val/accuracy"] for each in facts["tried"]}
    chosen = tuple(round(each["weight"], 2) for each in facts["members"])
    assert len(tried) == 11 and tried[chosen] == max(tried.values())
    assert count_members(load_bundle(run.model_dir).network) == 1
    ends = join(home, "runs=[probe,tuned]", "method=wise_ft", "ensemble.alpha=0", "calibration=none")
    plain = finetune("evaluate", "run=probe", "bootstrap=20", "device=cpu", "report=false", folder=home)
    assert plain.returncode == 0
    assert stored(ends).argmax(1).tolist() == stored(Run(home / "runs" / "probe")).argmax(1).tolist()


def test_a_soup_of_networks_with_other_statistics_gets_those_of_its_training_images(home: Path) -> None:
    run = join(home, "runs=[probe,tuned]", "method=soup", "calibration=none")
    mixed, first, second = (
        load_bundle(Run(home / "runs" / name).model_dir).network.state_dict() for name in (run.path, "probe", "tuned")
    )
    weight = next(name for name in mixed if name.endswith("conv_stem.weight"))
    assert np.allclose(mixed[weight], (first[weight] + second[weight]) / 2, atol=1e-6)
    mean = next(name for name in mixed if name.endswith("running_mean"))
    assert not np.allclose(mixed[mean], (first[mean] + second[mean]) / 2, atol=1e-6)


def test_snapshots_of_one_training_are_joined(home: Path) -> None:
    assert sorted(path.name for path in (home / "runs" / "snaps" / "snapshots").iterdir()) == ["1", "2"]
    run = join(home, "runs=[snaps]", "ensemble.snapshots=true", "method=logits")
    assert count_members(load_bundle(run.model_dir).network) == 2


def test_stacking_and_votes_work_from_the_command_line(home: Path) -> None:
    for method in ("stacking", "vote"):
        run = join(home, "runs=[probe,tuned]", f"method={method}")
        assert json.loads(run.metrics_file.read_text())["ensemble"]["method"] == method


def test_what_does_not_belong_together_is_refused(home: Path) -> None:
    settings = settings_for(EnsembleRootSettings, runs=["probe", "other"], folder=str(home / "runs"))
    options = settings.ensemble
    check_candidates(find_members(settings))  # another validation split is no leak, since the test split is given
    with pytest.raises(ConfigError, match="two models or more"):
        check_candidates(find_members(replace(settings, runs=("probe",))))
    with pytest.raises(ConfigError, match="named twice"):
        check_candidates(find_members(replace(settings, runs=("probe", "probe"))))
    with pytest.raises(ConfigError, match="one of them"):
        find_members(replace(settings, ensemble=replace(options, cv="last")))
    with pytest.raises(ConfigError, match="Name what is joined"):
        find_members(replace(settings, runs=None))
    with pytest.raises(ConfigError, match="kept no snapshots"):
        find_members(replace(settings, ensemble=replace(options, snapshots=True)))
    found = finetune("ensemble", "runs=[probe,other]", "method=wise_ft", folder=home)
    assert found.returncode == 2 and "same validation images" in found.stderr
    found = finetune("ensemble", "runs=[probe,tuned]", "method=stackng", folder=home)
    assert found.returncode == 2 and "Did you mean 'stacking'" in found.stderr


def test_a_run_that_has_learnt_from_anothers_test_images_is_refused(home: Path, tmp_path: Path) -> None:
    candidates = find_members(settings_for(EnsembleRootSettings, runs=["probe", "tuned"], folder=str(home / "runs")))
    from finetune.evaluation.images import run_table

    table = run_table(candidates[1].run)
    swapped = table.frame["split"].map({"train": "test", "test": "train", "val": "val"})
    leaky = Run(tmp_path / "leaky")
    leaky.path.mkdir()
    replace(table, frame=table.frame.assign(split=swapped)).save(leaky.table_file)
    with pytest.raises(DataError, match="has learnt from 24 of the 24 test images"):
        check_candidates([candidates[0], replace(candidates[1], run=leaky)])
