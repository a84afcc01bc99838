"""Promises that predict makes: from the run's validation predictions, in columns of the table, or refused."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import finetune
from PIL import Image

from finetune.errors import ConfigError
from finetune.evaluation.guarantees import Guarantees, check_guarantee_views, guarantees_of
from finetune.evaluation.predictions import Predictions, confidence_of
from finetune.runs.run import Run

LABELS = ("a", "b", "c")


def make_run(folder: Path, number: int = 200, *, task: str = "multiclass") -> Run:
    """Return a run with validation predictions, of which the sure ones are right."""
    run = Run.create(folder / "run", config={}, command=[], seed=0)
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet((0.4, 0.4, 0.4), size=number)
    drawn = np.array([generator.choice(3, p=row) for row in probabilities])
    targets = np.eye(3, dtype=np.int8)[drawn] if task == "multilabel" else drawn
    ids = np.array([str(row) for row in range(number)], object)
    Predictions(ids, ids, targets, probabilities, LABELS, task, pd.DataFrame()).save(run.predictions_file("val"))  # type: ignore[arg-type]
    return run


def test_sets_and_decisions_are_those_of_the_validation_predictions(tmp_path: Path) -> None:
    guarantees, told = guarantees_of(make_run(tmp_path), 0.9, 0.7)
    assert guarantees.columns == ("set", "decision")
    sure = guarantees.cells(np.array([0.98, 0.01, 0.01], np.float32), LABELS, "multiclass")
    unsure = guarantees.cells(np.array([0.4, 0.35, 0.25], np.float32), LABELS, "multiclass")
    assert sure == {"set": "a", "decision": "accepted"}
    assert unsure["decision"] == "refer"
    assert unsure["set"].startswith("a|b")
    assert "at least 0.9 of images like the 200 validation images" in told[0]
    assert "with 95 % confidence" in told[1]
    assert guarantees_of(make_run(tmp_path / "other"), None, None) == (Guarantees(), [])


@pytest.mark.parametrize(
    ("number", "task", "coverage", "accuracy", "expected"),
    [
        (20, "multiclass", 0.99, None, "needs 99 validation images"),
        (20, "multiclass", None, 0.99, "cannot be promised by 20"),
        (20, "multiclass", 1.5, None, "below 1"),
        (20, "multiclass", None, 0.0, "above 0"),
        (50, "multilabel", 0.9, None, "one label per image"),
    ],
)
def test_what_cannot_be_promised_is_refused(
    tmp_path: Path, number: int, task: str, coverage: float | None, accuracy: float | None, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        guarantees_of(make_run(tmp_path, number, task=task), coverage, accuracy)


def test_promises_need_validation_predictions_in_the_same_views(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "empty", config={}, command=[], seed=0)
    with pytest.raises(ConfigError, match="no validation predictions"):
        guarantees_of(run, 0.9, None)
    with pytest.raises(ConfigError, match="views=2"):
        check_guarantee_views(2, 1)


def test_the_confidence_of_several_labels_is_that_of_the_unsurest() -> None:
    assert confidence_of(np.array([[0.9, 0.45, 0.05]], np.float32), "multilabel") == pytest.approx([0.55])


@pytest.mark.slow
def test_a_calibrated_run_predicts_what_it_stored_and_writes_its_promises(tmp_path: Path) -> None:
    light = (
        "model=timm", "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "strategy=frozen",
        "logger=none", "bootstrap=0", "report=false", "calibration=vector", f"cache.dir={tmp_path}/kept",
    )  # fmt: skip
    trained = finetune(*light, folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    (run,) = Run.all(tmp_path / "runs")
    stored = Predictions.load(run.predictions_file("test"))
    evaluated = finetune("evaluate", "run=last", "bootstrap=0", "report=false", folder=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    again = Predictions.load(next(run.path.glob("evaluations/*/predictions/test.parquet")))
    assert again.probabilities == pytest.approx(stored.probabilities, abs=2e-5)
    from finetune.data.sources import digits

    store = digits().store
    (tmp_path / "new").mkdir()
    for row in range(5):
        image = store.read(str(stored.paths[row]), 1)
        Image.Image.save(image, tmp_path / "new" / f"{row}.png")
    said = finetune("predict", "run=last", "input=new", "coverage=0.9", "target_accuracy=0.6", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["decision"] for row in rows} <= {"accepted", "refer"}
    assert all(row["predicted"] in row["set"].split("|") for row in rows)
    found = [float(row["probability"]) for row in rows]
    assert found == pytest.approx(stored.probabilities[:5].max(axis=1).tolist(), abs=1e-3)
