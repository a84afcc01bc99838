"""AUROC and FPR at 95 % TPR are scikit-learn's, and a run tells unlike images from its bundle alone."""

import csv
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from command import finetune
from configured import command_config
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from finetune.commands.evaluate import evaluate
from finetune.commands.predict import predict
from finetune.evaluation.ood import acceptance_document, compare_scores, histogram
from finetune.evaluation.prediction_table import TableFormat
from finetune.models.bundle import load_bundle
from finetune.report.run_data import gather_run_data
from finetune.report.sections.ood_section import ood_section
from finetune.runs.run import Run
from finetune.uncertainty.ood.detector import Detector, FeaturesAndLogits

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("digits", [0, 6])  # with ties and without
def test_scores_are_compared_as_scikit_learn_compares_them(digits: int) -> None:
    own, others = np.round(GENERATOR.normal(size=300), digits), np.round(GENERATOR.normal(1.5, size=120), digits)
    found = compare_scores(own, others, resamples=200, seed=0)
    truth, scores = np.repeat([0, 1], [300, 120]), np.concatenate([own, others])
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(truth, scores))
    # the run's own images are the positives: accepted where their score is low
    false, true, _ = roc_curve(1 - truth, -scores, drop_intermediate=False)
    assert found["fpr_at_95_tpr"]["value"] == pytest.approx(false[np.argmax(true >= 0.95 - 1e-9)])
    for entry in found.values():
        assert entry["low"] < entry["value"] < entry["high"]


def test_intervals_cover_the_truth_and_say_nothing_where_resamples_agree() -> None:
    from scipy.stats import norm

    truth, hits = norm.cdf(1 / np.sqrt(2)), 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        own, others = generator.normal(size=80), generator.normal(1.0, size=80)
        found = compare_scores(own, others, resamples=200, seed=seed)["auroc"]
        hits += found["low"] <= truth <= found["high"]
    assert hits >= 52  # of 57 expected; fewer have a chance below 0.02
    apart = compare_scores(np.zeros(20), np.ones(30), resamples=50, seed=0)
    assert apart["auroc"] == {"value": 1.0, "low": None, "high": None}
    assert apart["fpr_at_95_tpr"]["value"] == 0.0
    assert apart["fpr_at_95_tpr"]["high"] == pytest.approx(1 - 0.025 ** (1 / 30))  # Clopper and Pearson
    without = compare_scores(np.zeros(20), np.ones(30), resamples=0, seed=0)
    assert without["fpr_at_95_tpr"] == {"value": 0.0, "low": None, "high": None}


def test_every_score_is_in_a_bin() -> None:
    own, others = GENERATOR.normal(size=500), GENERATOR.normal(40, size=70)
    found = histogram(own, others, 2.0)
    assert (sum(found["own"]), sum(found["others"])) == (500, 70)
    assert found["edges"][0] < 2.0 < found["edges"][-1]


def test_a_threshold_of_few_images_is_said_to_promise_nothing() -> None:
    few = Detector("energy", "multiclass", 0.0, 0.95, 0, 7)
    found = acceptance_document(few, {"test": FeaturesAndLogits(None, np.zeros((4, 3)))})
    assert "7 validation images are too few" in found["notes"][0]
    assert found["accepted"]["test"]["value"] == 1.0  # minus log 3 is below 0


def test_rows_say_what_is_unlike_and_keep_their_place_where_a_file_cannot_be_read() -> None:
    detector = Detector("energy", "multilabel", -1.0, 0.9, 0, 50)
    table = TableFormat(("a", "b"), "multilabel", errors=True, detector=detector)
    logits = np.array([[3.0, 0.0], [-5.0, -5.0]], np.float32)
    rows = table.rows(["x", "y", "z"], logits, [None, "damaged", None], FeaturesAndLogits(None, logits))
    assert [row.get("unlike_training") for row in rows] == ["no", None, "yes"]
    assert rows[0]["ood"] == pytest.approx(-np.logaddexp(0, [3.0, 0.0]).sum())
    assert list(table.columns)[-5:] == ["ood_score", "is_ood", "ood", "unlike_training", "error"]
    assert [row.get("is_ood") for row in rows] == [False, None, True] and rows[0]["ood_score"] == rows[0]["ood"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits that knows its components, evaluated against noise, which it also predicts."""
    folder = tmp_path_factory.mktemp("unlike")
    (folder / "noise" / "deep").mkdir(parents=True)
    for number in range(9):
        pixels = GENERATOR.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "noise" / ("deep" if number % 2 else "") / f"{number}.png")
    (folder / "noise" / "broken.png").write_bytes(b"no image")
    done = finetune(
        "model=timm", "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "strategy=frozen",
        "strategy.epochs=1", "logger=none", "bootstrap=0", "report=false", "explain.images=0", "ood=pca",
        f"cache.dir={folder}/kept", folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = Run.all(folder / "runs")
    common = {"run": str(run.path), "workers": 0}
    asked = {"bootstrap": 50, "ood_data": str(folder / "noise")}
    wanted = {"input": str(folder / "noise"), "unreadable": "skip", "components": 2, "output": f"{folder}/new.csv"}
    for command, words in ((evaluate, asked), (predict, wanted)):
        with (folder / f"{command.__name__}.txt").open("w") as file, redirect_stdout(file):
            command(command_config(command.__name__, **{**common, **words}))
    return folder


def test_a_run_tells_noise_from_digits(trained: Path) -> None:
    (run,) = Run.all(trained / "runs")
    stored = run.metrics["ood"]
    assert stored["kind"] == "pca" and stored["fitted_on"] == 1257 and stored["held_out"] == 270
    assert stored["accepted"]["val"]["value"] == pytest.approx(np.ceil(271 * 0.95) / 270)
    assert stored["accepted"]["test"]["low"] < 0.95 < stored["accepted"]["test"]["high"]
    (evaluated,) = run.path.glob("evaluations/*/metrics.json")
    found = json.loads(evaluated.read_text())["ood"]
    assert found["accepted"]["own"] == stored["accepted"]["test"]  # the same images, from the stored model
    assert found["n"] == {"own": 270, "others": 9} and set(found["scores"]) == {"pca", "energy", "msp"}
    assert found["scores"]["pca"]["auroc"]["value"] > 0.95 and found["called_unlike"]["value"] > 0.5
    assert found["notes"] == [f"1 images of {trained / 'noise'} cannot be read."]
    assert "noise against 270 of the run" in " ".join((trained / "evaluate.txt").read_text().split())
    assert "Out-of-distribution detection" in (evaluated.parent / "report.html").read_text()


def test_predictions_say_what_the_bundle_says_of_each_image(trained: Path) -> None:
    (run,) = Run.all(trained / "runs")
    detector = load_bundle(run.model_dir).detector
    with (trained / "new.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert detector is not None and len(rows) == 10
    read = [row for row in rows if not row["error"]]
    assert len(read) == 9 and all((row["unlike_training"] == "yes") == (float(row["ood"]) > detector.threshold)
                                  for row in read)  # fmt: skip
    assert all(row["component_1"] and row["component_2"] for row in read)
    unlike = sum(row["unlike_training"] == "yes" for row in read)
    assert f"{unlike} of 9." in (trained / "predict.txt").read_text()


def test_the_page_tells_what_metrics_hold_and_nothing_of_older_runs(trained: Path) -> None:
    (run,) = Run.all(trained / "runs")
    run_data = gather_run_data(run)
    section = ood_section(run_data)
    assert section is not None and "1,257 training images" in section.lead
    run_data.document.pop("ood")
    assert ood_section(run_data) is None
