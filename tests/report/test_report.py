"""The page of a run: made at its end and at any time from its files, also without model and images."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import opened
from command import finetune

from finetune.evaluation.predictions import Predictions
from finetune.report.build import write_report
from finetune.runs import Run

LIGHT = ("model=timm", "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "trainer=cpu",
         "logger=none", "bootstrap=100", "strategy=frozen", "strategy.epochs=3")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A real run, which all tests of this file read or copy."""
    folder = tmp_path_factory.mktemp("report")
    said = finetune(*LIGHT, f"cache.dir={folder}/kept", folder=folder)
    assert said.returncode == 0, said.stderr
    (found,) = Run.all(folder / "runs")
    assert f"report    {found.report_file}" in said.stdout
    return found


def test_the_page_says_how_good_the_run_is_and_opens_without_a_fault(run: Run) -> None:
    scores = json.loads(run.metrics_file.read_text())["test"]
    with opened(run.report_file) as (page, seen):
        titles = page.locator("h2").all_text_contents()
        assert titles[0] == "Verdict"
        assert {"Learning", "Each class", "Examples", "Thresholds", "Data", "How to reproduce"} <= set(titles)
        verdict = page.locator("#verdict").text_content() or ""
        assert f"{100 * scores['accuracy']['value']:.1f} % of the images are right" in verdict
        assert "the commonest class, always" in verdict
        assert "nearest training images" in verdict
        assert page.locator("#examples img").count() >= 10
        assert page.locator("#examples img[data-overlay]").count() >= 10
        page.set_viewport_size({"width": 360, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert (seen.problems, seen.requests) == ([], [])
    assert run.report_file.stat().st_size < 2e6


def test_the_page_is_made_again_from_predictions_alone(run: Run, tmp_path: Path) -> None:
    copy = Run(Path(shutil.copytree(run.path, tmp_path / "copy")))
    for gone in (copy.model_dir, copy.checkpoints, copy.path / "explanations"):
        shutil.rmtree(gone)
    predictions = Predictions.load(copy.predictions_file("test"))
    paths = np.array([f"/gone/{name}.png" for name in predictions.ids], object)
    Predictions(
        predictions.ids, paths, predictions.targets, predictions.probabilities, predictions.labels, predictions.task,
        predictions.groups,
    ).save(copy.predictions_file("test"))  # fmt: skip
    said = finetune("report", f"run={copy.path}", "output=page.html", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    text = (tmp_path / "page.html").read_text()
    assert "The image is not there any more." in text
    assert "images are not where they were" in text
    assert "No maps were made" in text


def test_another_run_is_a_baseline_and_a_threshold_has_an_aim(run: Run, tmp_path: Path) -> None:
    other = shutil.copytree(run.path, tmp_path / "other")
    words = (f"run={run.path}", f"baseline={other}", "operating.min_recall=0.9", "output=page.html")
    said = finetune("report", *words, folder=tmp_path)
    assert said.returncode == 0, said.stderr
    text = (tmp_path / "page.html").read_text()
    assert "this run: +0.0000" in text
    assert "0.9" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("operating.min_recall=2",), "operating.min_recall=2"),
        (("operating.label=eleven",), "eleven"),
        (("baseline={run}",), "is the run itself"),
        (("output=.",), "is a folder"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_line(
    run: Run, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    typed = [word.format(run=run.path) for word in words]
    said = finetune("report", f"run={run.path}", "output=page.html" if "output=." not in typed else "output=.",
                    *(word for word in typed if word != "output=."), folder=tmp_path)  # fmt: skip
    assert said.returncode == 2, said.stdout
    assert expected in said.stderr
    assert said.stderr.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_an_unfinished_run_is_told_as_far_as_it_came(run: Run, tmp_path: Path) -> None:
    copy = Run(Path(shutil.copytree(run.path, tmp_path / "copy")))
    shutil.rmtree(copy.path / "predictions")
    copy.metrics_file.unlink()
    copy.update(status="interrupted")
    text = write_report(copy).read_text()
    assert "The run is interrupted and has not predicted anything yet" in text
    assert "Learning" in text


def test_evaluation_has_a_page_of_its_own_and_is_listed_on_the_run_s(run: Run, tmp_path: Path) -> None:
    copy = Run(Path(shutil.copytree(run.path, tmp_path / "copy")))
    said = finetune("evaluate", f"run={copy.path}", "bootstrap=50", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    (page,) = copy.path.glob("evaluations/*/report.html")
    assert "Evaluation" in page.read_text()
    assert "evaluated" in copy.report_file.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_ten_thousand_images_of_many_classes_stay_below_five_megabytes(tmp_path: Path, task: str) -> None:
    generator = np.random.default_rng(0)
    number, labels = 10_000, 200 if task == "multiclass" else 20
    run = Run.create(tmp_path / "large", config={"seed": 0}, command=["finetune"], seed=0)
    names = tuple(f"a class of a long name {label:03d}" for label in range(labels))
    ids = np.array([f"folder/of/images/{row:05d}.jpg" for row in range(number)], object)
    for split in ("val", "test"):
        if task == "multiclass":
            targets = generator.integers(labels, size=number)
            logits = generator.normal(size=(number, labels))
            logits[np.arange(number), targets] += 3
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        else:
            targets = (generator.random((number, labels)) < 0.2).astype(np.int8)
            probabilities = np.clip(0.5 * targets + 0.5 * generator.random((number, labels)), 0, 1)
        found = Predictions(ids, ids, targets, probabilities, names, task, pd.DataFrame())  # type: ignore[arg-type]
        found.save(run.predictions_file(split))
    file = write_report(run)
    assert file.stat().st_size < 5e6
    assert not re.search(r"(src|href)=.http", file.read_text())
