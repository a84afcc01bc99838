"""The page of a run is made from files alone, stays small, and never costs a run."""

import io
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import opened
from command import finetune
from PIL import Image
from scored import scored
from stored import photos_of, stored_run

from finetune.data.decoding import ArrayStore
from finetune.errors import RunError
from finetune.evaluation.curves.operating import OperatingChoice
from finetune.explain.store import save_maps
from finetune.models.bundle import save_bundle
from finetune.models.network import build_network
from finetune.page.blocks import Gallery
from finetune.report.build import attempt, sections, write_report
from finetune.report.material import gather
from finetune.report.sections.examples import examples_section
from finetune.runs import Run, write_json

GONE = "The image is not there any more."


def anchors(run: Run) -> list[str]:
    return [section.anchor for section in sections(gather(run), OperatingChoice())]


def galleries(run: Run) -> list[Gallery]:
    found = {section.anchor: section for section in sections(gather(run), OperatingChoice())}
    return [block for block in found["examples"].blocks if isinstance(block, Gallery)]


def test_sections_come_in_order_and_each_once(tmp_path: Path) -> None:
    predictions = replace(scored(120, 3), groups=pd.DataFrame({"site": ["a", "b", "c"] * 40}))
    run = stored_run(tmp_path / "run", {"val": scored(60, 3, seed=1), "test": predictions})
    write_json(run.path / "evaluations" / "1" / "metrics.json", gather(run).document)
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
    for folder in (run.model_dir, run.checkpoints, tmp_path / "photos"):
        shutil.rmtree(folder)
    after = write_report(run).read_text()
    assert after.count(GONE) == len(pictures)
    assert f"{len(pictures)} images are not where they were" in after
    same = [anchor for anchor in anchors(run) if f'id="{anchor}"' in before]
    assert same == anchors(run)
    run.table_file.unlink()
    run.history_file.unlink()
    assert {"learning", "data"}.isdisjoint(anchors(run)) and "verdict" in anchors(run)


@pytest.mark.slow
def test_ten_thousand_images_with_their_maps_stay_below_five_megabytes(tmp_path: Path) -> None:
    predictions = photos_of(scored(10_000, 200, sure=4.0), tmp_path / "photos", side=400)
    run = stored_run(tmp_path / "run", {"val": scored(2_000, 200, seed=1, sure=4.0), "test": predictions}, resamples=0)
    network = build_network("test_resnet", num_classes=200, weights="none", image_size=32)
    save_bundle(network, predictions.labels, predictions.task, run.model_dir)
    noise = np.random.default_rng(0).random((10_000, 7, 7), np.float32)
    save_maps(run.path, dict(zip(map(str, predictions.ids), noise, strict=True)), "gradcam")
    assert all(picture.overlay for gallery in galleries(run) for picture in gallery.pictures)
    file = write_report(run)
    assert file.stat().st_size < 5_000_000
    with opened(file) as (page, seen):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert (seen.problems, seen.requests) == ([], [])


def test_report_of_a_run_opens_without_a_word_on_a_phone(tmp_path: Path) -> None:
    predictions = replace(scored(120, 4), groups=pd.DataFrame({"site": ["a", "b"] * 60}))
    run = stored_run(tmp_path / "run", {"val": scored(80, 4, seed=1), "test": predictions})
    with opened(write_report(run), viewport={"width": 360, "height": 700}) as (page, seen):
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
    told = replace(gather(run), splits={"test": predictions}, config={**run.config, "data": {"source": source}})
    white = ArrayStore(np.full((8, 6, 6), 255, np.uint8))
    for material, expected in ((told, False), (replace(told, store=white), True)):
        section = examples_section(material)
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
