"""The page of a run is made at its end and at any time from its files alone, stays small, and never costs a run."""

import io
import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from browser import launched, opened
from command import finetune
from PIL import Image
from scored import scored
from stored import photos_of, stored_run

from finetune.data.image_stores import ArrayStore
from finetune.errors import RunError
from finetune.evaluation.curves.operating_points import OperatingChoice
from finetune.evaluation.explain.attribution_store import save_maps
from finetune.models.bundle import save_bundle
from finetune.models.network import build_network
from finetune.report.html.blocks import Gallery
from finetune.report.run_data import gather_run_data
from finetune.report.run_page import attempt, run_sections, write_report
from finetune.report.sections.examples_section import examples_section
from finetune.runs.run import Run, write_json

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GONE = "The image is not there any more."
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


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with launched() as found:
        yield found


def anchors(run: Run) -> list[str]:
    return [section.anchor for section in run_sections(gather_run_data(run), OperatingChoice())]


def galleries(run: Run) -> list[Gallery]:
    section = examples_section(gather_run_data(run))
    assert section is not None
    return [block for block in section.blocks if isinstance(block, Gallery)]


def test_the_page_says_how_good_the_run_is_and_opens_without_a_fault(run: Run, browser: "Browser") -> None:
    scores = json.loads(run.metrics_file.read_text())["test"]
    with opened(run.report_file, browser) as (page, seen):
        titles = page.locator("h2").all_text_contents()
        assert titles[0] == "Verdict"
        assert {"Learning curves", "Per-class metrics", "Confusion matrix", "Calibration", "Decision threshold"} <= set(
            titles
        )
        assert {"ROC and precision-recall", "Examples", "Data", "How to reproduce"} <= set(titles)
        verdict = page.locator("#verdict").text_content() or ""
        assert f"{100 * scores['accuracy']['value']:.1f} % of the images are right" in verdict
        assert "majority-class baseline" in verdict
        assert "k-NN baseline" in verdict
        assert page.locator("#examples img").count() >= 10
        assert page.locator("#examples img[data-overlay]").count() >= 10
        page.set_viewport_size({"width": 360, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert (seen.problems, seen.requests) == ([], [])
    assert run.report_file.stat().st_size < 2e6


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
    assert "Learning curves" in text


def test_evaluation_has_a_page_of_its_own_and_is_listed_on_the_run_s(run: Run, tmp_path: Path) -> None:
    copy = Run(Path(shutil.copytree(run.path, tmp_path / "copy")))
    said = finetune("evaluate", f"run={copy.path}", "bootstrap=50", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    (page,) = copy.path.glob("evaluations/*/report.html")
    assert "Evaluation" in page.read_text()
    assert "evaluated" in copy.report_file.read_text()


def test_sections_come_in_order_and_each_once(tmp_path: Path) -> None:
    predictions = replace(scored(120, 3), groups=pd.DataFrame({"site": ["a", "b", "c"] * 40}))
    run = stored_run(tmp_path / "run", {"val": scored(60, 3, seed=1), "test": predictions})
    write_json(run.path / "evaluations" / "1" / "metrics.json", gather_run_data(run).document)
    write_json(
        run.path / "evaluations" / "1" / "evaluation.json",
        {"created": "2026-01-01T00:00:00+00:00", "split": "test", "images": "own", "data": {}},
    )
    audit = {"counts": {"leakage": 3}, "created": "2026-01-01", "images": 90, "page": "audit/audit.html"}
    run.update(audit=audit)
    found = anchors(run)
    assert len(found) == len(set(found))
    assert found[:2] == ["verdict", "learning"] and found[-1] == "reproduce"
    assert {"classes", "groups", "examples", "audit", "data", "evaluations"} <= set(found)


@pytest.mark.parametrize("multilabel", [False, True])
def test_deleting_the_model_and_the_images_leaves_the_report(tmp_path: Path, multilabel: bool) -> None:
    predictions = photos_of(scored(90, 3, multilabel=multilabel), tmp_path / "photos", side=40)
    run = stored_run(tmp_path / "run", {"val": scored(60, 3, seed=1, multilabel=multilabel), "test": predictions})
    network = build_network("test_resnet", num_classes=3, weights="none", image_size=32)
    save_bundle(network, predictions.labels, predictions.task, run.model_dir)
    save_maps(run.path, {str(name): np.ones((4, 4), np.float32) for name in predictions.ids}, "gradcam")
    before = write_report(run).read_text()
    pictures = [picture for gallery in galleries(run) for picture in gallery.pictures]
    assert pictures and all(picture.image and picture.overlay for picture in pictures)
    assert GONE not in before
    for folder in (run.model_dir, run.checkpoints, tmp_path / "photos", run.path / "explanations"):
        shutil.rmtree(folder)
    after = write_report(run).read_text()
    assert after.count(GONE) == len(pictures)
    assert f"{len(pictures)} images are not where they were" in after
    assert "No maps were made" in after
    assert all(f'id="{anchor}"' in before for anchor in anchors(run))
    run.table_file.unlink()
    run.history_file.unlink()
    left = anchors(run)
    assert {"learning", "data"}.isdisjoint(left) and "verdict" in left


@pytest.mark.slow
def test_ten_thousand_images_with_their_maps_stay_below_five_megabytes(tmp_path: Path, browser: "Browser") -> None:
    predictions = photos_of(scored(10_000, 200, sure=4.0), tmp_path / "photos", side=400)
    run = stored_run(tmp_path / "run", {"val": scored(2_000, 200, seed=1, sure=4.0), "test": predictions}, resamples=0)
    network = build_network("test_resnet", num_classes=200, weights="none", image_size=32)
    save_bundle(network, predictions.labels, predictions.task, run.model_dir)
    noise = np.random.default_rng(0).random((10_000, 7, 7), np.float32)
    save_maps(run.path, dict(zip(map(str, predictions.ids), noise, strict=True)), "gradcam")
    assert all(picture.overlay for gallery in galleries(run) for picture in gallery.pictures)
    file = write_report(run)
    assert file.stat().st_size < 5_000_000
    with opened(file, browser) as (page, seen):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert (seen.problems, seen.requests) == ([], [])


@pytest.mark.slow
def test_ten_thousand_images_of_several_labels_stay_below_five_megabytes(tmp_path: Path) -> None:
    splits = {split: scored(10_000, 20, seed=seed, multilabel=True) for seed, split in enumerate(("val", "test"))}
    file = write_report(stored_run(tmp_path / "run", splits, resamples=0))
    assert file.stat().st_size < 5e6
    assert not re.search(r"(src|href)=.http", file.read_text())


def test_report_of_a_run_opens_without_a_word_on_a_phone(tmp_path: Path, browser: "Browser") -> None:
    predictions = replace(scored(120, 4), groups=pd.DataFrame({"site": ["a", "b"] * 60}))
    run = stored_run(tmp_path / "run", {"val": scored(80, 4, seed=1), "test": predictions})
    with opened(write_report(run), browser, viewport={"width": 360, "height": 700}) as (page, seen):
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
        assert len(ids) == len(set(ids))
        figures = page.locator("figure.drawing [role=img]")
        assert figures.count() >= 5
        assert all(figures.evaluate_all("found => found.map((figure) => figure.ariaLabel)"))
    assert (seen.problems, seen.requests) == ([], [])


def test_images_of_an_evaluation_are_read_as_it_read_them(
    tmp_path: Path,
) -> None:
    predictions = scored(8, 3)
    run = stored_run(tmp_path / "run", {"test": predictions})
    object.__setattr__(predictions, "paths", np.array([f"digits/{number:04d}" for number in range(8)], object))
    source = {"_target_": "finetune.data.sources.digits"}  # which has images of those names
    told = replace(
        gather_run_data(run),
        splits={"test": predictions},
        config={**run.config, "data": {**run.config["data"], "source": source}},
    )
    white = ArrayStore(np.full((8, 6, 6), 255, np.uint8))
    for run_data, expected in ((told, False), (replace(told, store=white), True)):
        section = examples_section(run_data)
        assert section is not None
        images = [each.image for block in section.blocks if isinstance(block, Gallery) for each in block.pictures]
        pixels = [np.asarray(Image.open(io.BytesIO(image))).min() > 250 for image in images if image is not None]
        assert pixels and all(is_white == expected for is_white in pixels)


def test_repeat_is_the_command_without_its_folder(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run", {"test": scored(60, 3)})
    page = write_report(run).read_text()
    assert "finetune &#39;data.root=my photos&#39;</code>" in page
    for told in ("f00d", run.record["id"], "strategy:", "name: lp_ft"):
        assert told in page


def test_damaged_scores_are_one_line_and_leave_the_old_page(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run", {"test": scored(60, 3)})
    before = write_report(run).read_bytes()
    run.metrics_file.write_text("{")
    with pytest.raises(RunError) as caught:
        write_report(run)
    assert "metrics.json is damaged" in str(caught.value) and "\n" not in str(caught.value)
    assert run.report_file.read_bytes() == before


def test_page_that_fails_is_said_in_a_line(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run", {"test": scored(60, 3)})
    run.report_file.mkdir()
    with caplog.at_level(logging.WARNING):
        attempt(lambda: write_report(run), "The report")
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert message.startswith("The report could not be made (IsADirectoryError: ") and "\n" not in message
    assert not list(run.path.glob(".partial-*"))


@pytest.mark.slow
def test_training_and_evaluation_outlive_a_report_that_fails(tmp_path: Path) -> None:
    (tmp_path / "mine" / "report.html").mkdir(parents=True)
    done = finetune(
        "hydra.run.dir=mine", "model=timm", "model.name=test_efficientnet", "model.weights=none", "strategy=frozen",
        "strategy.epochs=1", "data.image_size=32", "trainer=cpu", "logger=none", "bootstrap=20", "explain.images=2",
        folder=tmp_path,
    )  # fmt: skip
    run = Run.open(tmp_path / "mine")
    assert done.returncode == 0 and run.status == "finished", done.stderr
    assert json.loads(run.metrics_file.read_text())["test"]["accuracy"]["value"] is not None
    assert (done.stdout + done.stderr).count("The report could not be made (IsADirectoryError") == 1
    assert "Traceback" not in done.stdout + done.stderr and "Traceback" in run.log_file.read_text()
    again = finetune("evaluate", "run=mine", "bootstrap=0", folder=tmp_path)
    assert again.returncode == 0 and "The report could not be made (IsADirectoryError" in again.stderr, again.stderr
    assert len(list(run.path.glob("evaluations/*/metrics.json"))) == 1
