"""The verdict: the score beside what costs nothing, and what speaks against relying on it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scored import predicted, scored
from stored import stored_run

from finetune.evaluation.predictions import Predictions
from finetune.report.html.blocks import Fact, FactList, Section, Table, Text
from finetune.report.run_data import RunData, gather_run_data
from finetune.report.sections.learning_section import learning_section
from finetune.report.sections.verdict_section import verdict_section


def told(run_data: RunData) -> Section:
    section = verdict_section(run_data)
    assert section is not None
    return section


def texts(section: Section) -> dict[str, str]:
    return {block.text: block.tone for block in section.blocks if isinstance(block, Text)}


def beside(section: Section) -> dict[object, tuple[object, ...]]:
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    return {row[0]: row[1:] for row in table.rows}


def with_errors(num: int, wrong: int) -> Predictions:
    """Predictions of two classes in turn, of which the first `wrong` are taken for the other one."""
    targets = np.arange(num) % 2
    guesses = np.where(np.arange(num) < wrong, 1 - targets, targets)
    return predicted(targets, np.eye(2)[guesses] * 0.8 + 0.1, ("ant", "bee"))


def test_score_is_told_with_its_interval_and_number_of_images(tmp_path: Path) -> None:
    run_data = gather_run_data(stored_run(tmp_path / "run", {"test": with_errors(400, 20)}, resamples=200))
    score = run_data.document["test"]["accuracy"]
    section = told(run_data)
    assert section.lead == (
        "95.0 % of the images are right, on 400 images of the test split, with 95 % confidence between "
        f"{score['low']:.3f} and {score['high']:.3f}."
    )
    (facts,) = [block.facts for block in section.blocks if isinstance(block, FactList)]
    assert facts[0] == Fact("accuracy", "0.950", f"{score['low']:.3f} to {score['high']:.3f}")
    (sentence,) = texts(section)
    assert sentence.startswith("Nothing here speaks against relying on it") and "400 images" in sentence


def test_commonest_class_of_training_is_measured_on_test(tmp_path: Path) -> None:
    predictions = predicted([0, 0, 0, 1], np.full((4, 2), 0.5), ("ant", "bee"))
    run = stored_run(tmp_path / "run", {"test": predictions}, train=["bee", "bee", "ant"])
    rows = beside(told(gather_run_data(run)))
    assert rows["majority-class baseline"][:2] == (0.25, 4)  # bee, though ant is commoner in test
    assert rows["k-NN baseline"][0] == 0.61
    assert rows["linear probe"][0] == 0.7  # the best of the first phase, not of the run


def test_score_that_the_commonest_class_reaches_is_called_no_better(tmp_path: Path) -> None:
    targets = np.array([0] * 180 + [1] * 20)
    blind = predicted(targets, np.tile([0.9, 0.1], (200, 1)), ("ant", "bee"))
    run = stored_run(tmp_path / "run", {"test": blind}, train=["ant", "ant", "bee"])
    found = texts(told(gather_run_data(run)))
    assert found["It is not clearly better than always naming the commonest class, which is right in 0.900."] == "bad"
    assert any("Of bee, 0 % of 20 images are recognised" in text for text in found)


def test_few_images_no_interval_and_leaks_are_doubts(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run", {"test": with_errors(40, 4)}, resamples=0)
    run.update(audit={"counts": {"leakage": 2}, "created": "2026-01-01", "images": 9, "page": "audit.html"})
    found = texts(told(gather_run_data(run)))
    assert found["With 40 images a single one changes the score by 2.5 points."] == "warning"
    assert any(text.startswith("The score has no interval (bootstrap=0)") for text in found)
    assert found["An audit found 2 images of val and test in an earlier split too: the score flatters."] == "bad"
    assert not any(text.startswith("Nothing here speaks against") for text in found)


def test_wide_interval_is_a_doubt(tmp_path: Path) -> None:
    run_data = gather_run_data(stored_run(tmp_path / "run", {"test": with_errors(110, 33)}, resamples=200))
    score = run_data.document["test"]["accuracy"]
    width = round(100 * (score["high"] - score["low"]))
    assert f"The interval is {width} points wide: more test images would help." in texts(told(run_data))


def test_validation_alone_is_said_to_flatter(tmp_path: Path) -> None:
    section = told(gather_run_data(stored_run(tmp_path / "run", {"val": with_errors(400, 20)})))
    assert "of the validation split" in section.lead
    assert any("There are no test predictions" in text for text in texts(section))


def test_several_labels_are_judged_by_images_that_are_wholly_right(tmp_path: Path) -> None:
    predictions = scored(300, 3, multilabel=True, sure=6.0)
    exact = float((predictions.predicted == predictions.targets).all(axis=1).mean())
    section = told(gather_run_data(stored_run(tmp_path / "run", {"test": predictions})))
    assert section.lead.startswith(f"{100 * exact:.1f} % of the images have all labels right, on 300 images")
    assert "majority-class baseline" not in beside(section)


def test_other_run_on_other_images_is_said_not_to_be_comparable(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run", {"test": scored(60, 3)})
    other = scored(60, 3)
    renamed = dataclasses.replace(other, ids=np.array([f"other{number}" for number in range(60)], object))
    run_data = gather_run_data(run, stored_run(tmp_path / "elsewhere", {"test": renamed}))
    row = beside(told(run_data))["elsewhere"]
    assert row[0] is None and "not comparable" in str(row[2])


@pytest.mark.parametrize(("mode", "epoch", "value"), [("max", 3, 0.8), ("min", 0, 0.5)])
def test_learning_names_the_epoch_that_is_kept_and_each_phase(
    tmp_path: Path, mode: str, epoch: int, value: float
) -> None:
    run_data = gather_run_data(stored_run(tmp_path / "run", {"test": scored(60, 3)}))
    section = learning_section(dataclasses.replace(run_data, config={**run_data.config, "mode": mode}))
    assert section is not None
    assert section.lead == f"4 epochs in 2 phases; epoch {epoch} is the best by val/accuracy ({value:.4f})."
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert [row[1] for row in table.rows] == ["probe", "probe", "finetune", "finetune"]
    svg = "".join(block.svg for block in section.blocks if not isinstance(block, Table))  # type: ignore[union-attr]
    assert ">probe</text>" in svg and ">finetune</text>" in svg
