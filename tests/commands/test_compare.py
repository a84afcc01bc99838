"""The command compare: from predictions alone, with a gate that scripts can rely on, and refusals that teach."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import finetune
from PIL import Image

from finetune.evaluation.predictions import Predictions
from finetune.runs.run import Run

LABELS = ("ant", "bee", "wasp")
NUMBER = 150


def make_run(folder: Path, name: str, accuracy: float, *, number: int = NUMBER, images: Path | None = None) -> Run:
    """Return a run folder that holds test predictions and nothing else of use."""
    run = Run.create(folder / "runs" / "made" / name, config={"seed": 0}, command=["finetune"], seed=0)
    generator = np.random.default_rng(3)
    targets = np.arange(number) % 3
    right = generator.random(number) < accuracy
    decided = np.where(right, targets, (targets + 1) % 3)
    probabilities = np.full((number, 3), 0.1)
    probabilities[np.arange(number), decided] = 0.8
    ids = np.array([f"{row}.jpg" for row in range(number)], object)
    paths = ids if images is None else np.array([str(images / name) for name in ids], object)
    groups = pd.DataFrame({"site": np.where(np.arange(number) % 4 == 0, None, "north")})
    Predictions(ids, paths, targets, probabilities, LABELS, "multiclass", groups).save(run.predictions_file("test"))
    run.update(status="finished")
    return run


def test_a_better_run_is_said_to_be_better_by_how_much_and_where(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for row in range(NUMBER):
        Image.new("RGB", (12, 9), (row, 90, 40)).save(images / f"{row}.jpg")
    make_run(tmp_path, "old", 0.7, images=images)
    make_run(tmp_path, "new", 0.9, images=images)
    said = finetune("compare", "runs=[old,new]", "bootstrap=300", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "made/new is better than made/old by" in said.stdout
    assert max(map(len, said.stdout.split("made/new is better")[0].splitlines())) <= 80
    found = json.loads((tmp_path / "compare" / "compare.json").read_text())
    (pair,) = found["candidates"]
    assert pair["mcnemar"]["won"] == len(pair["won"]) > 10
    assert pair["mcnemar"]["lost"] == len(pair["lost"]) == 0
    won = pair["won"][0]
    assert won["candidate"] == won["label"] != won["baseline"]
    assert won["path"] == str(images / won["id"])
    assert pair["agreement"] == pytest.approx(1 - len(pair["won"]) / NUMBER)
    change = pair["metrics"]["accuracy"]
    assert change["difference"] == pytest.approx(len(pair["won"]) / NUMBER)
    assert 0 < change["low"] < change["difference"] < change["high"]
    assert set(pair["per_class"]) == set(LABELS)
    assert set(pair["per_group"]["site"]) == {"missing", "north"}
    page = (tmp_path / "compare" / "compare.html").read_text()
    assert page.count("<img") >= 10
    assert not re.search(r"(src|href)=.http|@import|url\(http", page)
    shutil.rmtree(images)
    assert finetune("compare", "runs=[old,new]", "bootstrap=50", folder=tmp_path).returncode == 0
    page = (tmp_path / "compare" / "compare.html").read_text()
    assert "<img" not in page
    assert "image files are no longer where they were" in page


def test_the_gate_of_a_candidate_sets_the_exit_code_after_all_is_written(tmp_path: Path) -> None:
    make_run(tmp_path, "old", 0.9)
    make_run(tmp_path, "worse", 0.6)
    make_run(tmp_path, "same", 0.9)
    gate = "compare.gate=accuracy>=-0.005"  # as a shell hands over compare.gate='accuracy>=-0.005'
    failed = finetune("compare", "runs=[old,worse]", gate, "bootstrap=300", folder=tmp_path)
    assert failed.returncode == 1
    assert "compare.gate=accuracy>=-0.005 is not passed" in failed.stderr
    assert "worse than allowed" in failed.stderr
    assert json.loads((tmp_path / "compare" / "compare.json").read_text())["gate"][0]["passed"] is False
    passed = finetune("compare", "runs=[old,same]", f"{gate},loss<=0.02", "bootstrap=300", folder=tmp_path)
    assert passed.returncode == 0, passed.stderr
    assert "made/same passes accuracy>=-0.005" in passed.stdout
    assert "made/same passes loss<=0.02" in passed.stdout


def test_the_best_trials_of_a_sweep_are_compared_with_the_best(tmp_path: Path) -> None:
    sweep = tmp_path / "sweeps" / "mine" / "2026-01-01_00-00-00"
    sweep.mkdir(parents=True)
    trials = [make_run(tmp_path, name, 0.9) for name in ("a", "b", "c")]
    values = (0.7, 0.9, 0.8)
    rows = [f"{n},complete,{value},{run.path}" for n, (value, run) in enumerate(zip(values, trials, strict=True))]
    (sweep / "sweep.csv").write_text("\n".join(["trial,state,val/accuracy,folder", *rows, "3,failed,,"]) + "\n")
    record = {"objectives": [{"name": "val/accuracy", "direction": "max"}]}
    (sweep / "sweep.json").write_text(json.dumps(record))
    said = finetune("compare", "compare.sweep=last", "top=2", "bootstrap=50", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    found = json.loads((tmp_path / "compare" / "compare.json").read_text())
    assert found["baseline"]["name"] == "made/b"
    assert [pair["name"] for pair in found["candidates"]] == ["made/c"]


def test_runs_with_other_images_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    make_run(tmp_path, "old", 0.9)
    make_run(tmp_path, "more", 0.9, number=NUMBER + 5)
    said = finetune("compare", "runs=[old,more]", folder=tmp_path)
    assert said.returncode == 2
    assert "5 are in made/more alone (first: 150.jpg, 151.jpg, 152.jpg)" in said.stderr
    assert "common=true" in said.stderr
    assert not (tmp_path / "compare").exists()
    common = finetune("compare", "runs=[old,more]", "common=true", "bootstrap=50", folder=tmp_path)
    assert common.returncode == 0, common.stderr
    assert "5 images are left out" in common.stdout
    assert "5 images are left out" in (tmp_path / "compare" / "compare.html").read_text()
    assert json.loads((tmp_path / "compare" / "compare.json").read_text())["images_left_out"] == 5


def test_several_runs_are_corrected_for_their_number_and_an_evaluation_takes_part(tmp_path: Path) -> None:
    make_run(tmp_path, "old", 0.85)
    for name, accuracy in (("b", 0.9), ("c", 0.8)):
        make_run(tmp_path, name, accuracy)
    evaluation = make_run(tmp_path, "d", 0.95).path / "evaluations" / "2026-01-01"
    (evaluation / "predictions").mkdir(parents=True)
    shutil.copy(Run.find("d", tmp_path / "runs").predictions_file("test"), evaluation / "predictions" / "test.parquet")
    (evaluation / "evaluation.json").write_text("{}")
    words = f"runs=[b,c,{evaluation}]"
    said = finetune("compare", words, "baseline=old", "bootstrap=100", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    found = json.loads((tmp_path / "compare" / "compare.json").read_text())
    assert found["baseline"]["name"] == "made/old"
    assert [pair["name"] for pair in found["candidates"]] == ["made/b", "made/c", "made/d@2026-01-01"]
    for pair in found["candidates"]:
        assert pair["mcnemar"]["p_holm"] >= pair["mcnemar"]["p"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("runs=[old]",), "two runs or more"),
        (("runs=[old,old]",), "the same folder twice"),
        ((), "runs=[A,B,…], or compare.sweep="),
        (("runs=[old,odl]",), "There is no run 'odl'"),
        (("runs=[old,new]", "compare.gate=accuracy"), "is no condition"),
        (("runs=[old,new]", "split=val"), "There are no predictions"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    make_run(tmp_path, "old", 0.9)
    make_run(tmp_path, "new", 0.9)
    said = finetune("compare", *words, folder=tmp_path)
    assert said.returncode in (1, 2)
    assert expected in said.stderr
    assert said.stderr.count("\n") == 1
    assert not (tmp_path / "compare").exists()
