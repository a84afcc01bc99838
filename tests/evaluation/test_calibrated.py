"""What is shipped is calibrated on validation alone, and what the checkpoint scored is kept."""

import json

import numpy as np
import pandas as pd
import pytest

from finetune.data.image_stores import FileStore
from finetune.data.table import ImageTable
from finetune.evaluation.bootstrap import metrics_document
from finetune.evaluation.calibrated import calibrate
from finetune.evaluation.metrics import compute_metrics
from finetune.evaluation.predictions import Predictions, to_probabilities
from finetune.runs.checkpoint_scores import checkpoint_scores


def outputs_of(
    *, sure: float = 5.0, num: int = 200, seed: int = 0, spoilt: bool = False
) -> tuple[ImageTable, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return a table and logits that are too sure; those of test mean nothing where they are spoilt."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(2 * num, 3))
    probabilities = to_probabilities(logits, "multiclass").astype(float).cumsum(axis=1)
    targets = (generator.random((2 * num, 1)) > probabilities[:, :-1]).sum(axis=1)
    names = [f"{number}.png" for number in range(2 * num)]
    frame = pd.DataFrame({
        "id": names, "path": names, "label": [("a", "b", "c")[k] for k in targets],
        "split": ["val"] * num + ["test"] * num,
    })  # fmt: skip
    table = ImageTable(frame, labels=("a", "b", "c"), task="multiclass", store=FileStore())
    rows = {split: table.rows(split) for split in ("val", "test")}
    found = {split: (rows[split], sure * logits[rows[split]]) for split in rows}
    if spoilt:
        found["test"] = (rows["test"], generator.normal(size=(num, 3)) * 100)
    return table, found


def test_calibration_depends_on_validation_alone() -> None:
    one = calibrate(*outputs_of(), "temperature", seed=0)
    other = calibrate(*outputs_of(spoilt=True), "temperature", seed=0)
    assert one.fitted == other.fitted
    assert one.fitted.scaling.temperature == pytest.approx(5, rel=0.25)


def test_all_splits_are_predicted_with_the_scaling() -> None:
    table, outputs = outputs_of()
    found = calibrate(table, outputs, "temperature", seed=0)
    for split, output in outputs.items():
        expected = to_probabilities(output[1] / found.fitted.scaling.temperature, "multiclass")
        np.testing.assert_allclose(found.predictions[split].probabilities, expected, atol=1e-6)


def test_record_holds_the_scores_before_and_after() -> None:
    table, outputs = outputs_of()
    found = calibrate(table, outputs, "temperature", seed=0)
    for split, output in outputs.items():
        plain = Predictions.from_logits(table, *output)
        changes = found.document[split]
        assert {name: change["before"] for name, change in changes.items()} == compute_metrics(plain)
        assert {name: change["after"] for name, change in changes.items()} == compute_metrics(found.predictions[split])
        assert changes["loss"]["after"] < changes["loss"]["before"]
        assert changes["accuracy"]["after"] == changes["accuracy"]["before"]


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_checkpoint_scores_are_those_of_a_run_without_calibration(method: str) -> None:
    table, outputs = outputs_of()
    documents = []
    for asked in (method, "none"):
        found = calibrate(table, outputs, asked, seed=0)
        document = {**metrics_document(found.predictions, resamples=0), "calibration": found.document}
        documents.append(json.loads(json.dumps(document)))
    calibrated, plain = documents
    assert calibrated["val"]["loss"]["value"] < plain["val"]["loss"]["value"]
    assert checkpoint_scores(calibrated, "val") == pytest.approx(checkpoint_scores(plain, "val"))


def test_checkpoint_scores_of_runs_that_know_no_calibration_are_their_metrics() -> None:
    assert checkpoint_scores({"val": {"loss": {"value": 0.3, "low": 0.2, "high": 0.4}}}, "val") == {"loss": 0.3}
    assert checkpoint_scores({}, "val") == {}
