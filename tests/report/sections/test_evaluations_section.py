"""The run over time: told where there is something to tell, from the folder alone, drift first."""

from pathlib import Path
from typing import Any

import pytest

from finetune.report.html.blocks import Figure, Section, Table, Text
from finetune.report.html.render import render
from finetune.report.run_data import RunData
from finetune.report.sections.evaluations_section import evaluations_section
from finetune.runs.run import Run, write_json


def scored(value: float) -> dict[str, Any]:
    score = {"value": value, "low": value - 0.1, "high": value + 0.05}
    return {"test": {"accuracy": score, "f1_macro": score}, "n": {"test": 1234}}


@pytest.fixture
def run_data(tmp_path: Path) -> RunData:
    run = Run.create(tmp_path / "run", config={}, command=[], seed=0)
    run.update(created="2026-01-01T00:00:00+00:00")
    write_json(run.metrics_file, scored(0.9))
    return RunData(run, {}, {}, {}, {}, [])


def evaluate(run_data: RunData, month: int, accuracy: float, drifted: list[str] | None) -> None:
    place = run_data.run.path / "evaluations" / f"{month}"
    shift = {"distance": 0.25, "chance": 0.1, "p": 0.002}
    drift = None if drifted is None else {"inputs": shift, "classes": shift, "confidence": None, "drifted": drifted}
    facts = {"created": f"2026-{month:02d}-01T12:00:00+00:00", "split": "test", "images": "other", "drift": drift}
    write_json(place / "evaluation.json", {**facts, "data": {"root": f"photos/<month {month}>"}})
    write_json(place / "metrics.json", scored(accuracy))


def block(section: Section, kind: Any) -> Any:
    return next(found for found in section.blocks if isinstance(found, kind))


def test_run_that_was_never_evaluated_again_tells_nothing(run_data: RunData) -> None:
    assert evaluations_section(run_data) is None
    run_data.run.metrics_file.unlink()
    assert evaluations_section(run_data) is None


def test_latest_evaluation_is_told_beside_the_training(run_data: RunData) -> None:
    evaluate(run_data, 2, 0.8, [])
    evaluate(run_data, 3, 0.7, ["inputs", "classes"])
    section = evaluations_section(run_data)
    assert section is not None
    assert section.lead == (
        "2 evaluations since the training. The latest, of 1,234 images (<month 3>): accuracy 0.700 (0.600 to 0.750); "
        "at the end of the training 0.900 (0.800 to 0.950)."
    )
    warning = block(section, Text)
    assert warning.tone == "warning" and "inputs, classes" in warning.text
    table = block(section, Table)
    names = [column.name for column in table.columns]
    assert [row[names.index("accuracy")] for row in table.rows] == [0.9, 0.8, 0.7]
    assert [row[names.index("images drift")] for row in table.rows] == [None, 0.25, 0.25]
    assert "confidence drift" not in names  # of which nothing is known
    figure = block(section, Figure)
    assert "0.700 (0.600 to 0.750)" in figure.description and figure.svg.startswith("<svg")
    assert "<month" not in figure.svg and "<month" not in render("Run", [section])


def test_without_drift_there_is_no_warning_and_older_evaluations_have_dashes(run_data: RunData) -> None:
    evaluate(run_data, 2, 0.8, None)
    section = evaluations_section(run_data)
    assert section is not None and not any(isinstance(found, Text) for found in section.blocks)
    assert section.lead.startswith("One evaluation since the training.")
    names = [column.name for column in block(section, Table).columns]
    assert not {"images drift", "beyond chance"} & set(names)


def test_many_evaluations_stay_readable(run_data: RunData) -> None:
    for month in range(1, 13):
        evaluate(run_data, month, 0.9 - month / 50, ["inputs"] if month > 8 else [])
    section = evaluations_section(run_data)
    assert section is not None
    svg = block(section, Figure).svg
    assert svg.count("2026-") <= 8 and len(svg) < 60_000
