"""The evaluations of a run over time: oldest first, whole ones only, with what each found."""

from pathlib import Path
from typing import Any

from finetune.evaluation.drift.timeline import timeline
from finetune.runs.run import Run, write_json


def scored(value: float, split: str = "test", n: int = 10) -> dict[str, Any]:
    return {split: {"accuracy": {"value": value, "low": value - 0.1, "high": value + 0.1}}, "n": {split: n}}


def evaluated(run: Run, folder: str, created: str, accuracy: float, **facts: Any) -> Path:
    place = run.path / "evaluations" / folder
    write_json(place / "metrics.json", scored(accuracy))
    write_json(place / "evaluation.json", {"created": created, "split": "test", "images": "other", **facts})
    return place


def test_rows_are_in_the_order_of_time_and_hold_drift(tmp_path: Path) -> None:
    run = Run.create(tmp_path, config={}, command=[], seed=0)
    assert timeline(run) == []
    run.update(created="2026-01-01T00:00:00+00:00")
    write_json(run.metrics_file, scored(0.9))
    shift = {"distance": 0.3, "chance": 0.1, "p": 0.001}
    drift = {"inputs": shift, "classes": None, "confidence": {**shift, "p": 0.5}, "drifted": ["inputs"]}
    evaluated(run, "a", "2026-03-01T00:00:00+00:00", 0.7, data={"root": "/photos/march"}, drift=drift)
    evaluated(run, "b", "2026-02-01T00:00:00+00:00", 0.8, images="same", drift={**drift, "drifted": []})
    rows = timeline(run)
    assert [row["accuracy"] for row in rows] == [0.9, 0.8, 0.7]
    assert [row["images"] for row in rows] == ["its own", "its own", "march"]
    assert [row["drifted"] for row in rows] == [None, "no", "inputs"]
    assert (rows[2]["drift/inputs"], rows[2]["drift/inputs_p"], rows[2]["n"]) == (0.3, 0.001, 10)
    assert "drift/classes" not in rows[2] and rows[0]["folder"] == "training"
    assert rows[1]["accuracy_low"] == 0.8 - 0.1


def test_what_is_torn_is_left_out(tmp_path: Path) -> None:
    run = Run.create(tmp_path, config={}, command=[], seed=0)
    for number, text in enumerate(("", "[]", "{}", '{"split": "test"')):
        (evaluated(run, f"torn{number}", "x", 0.5) / "evaluation.json").write_text(text)
        (evaluated(run, f"torn{number}m", "x", 0.5) / "metrics.json").write_text(text)
    (run.path / "evaluations" / "empty").mkdir()
    evaluated(run, "older", "2025-01-01T00:00:00+00:00", 0.6)  # written before drift was measured
    assert [(row["folder"], row["drifted"]) for row in timeline(run)] == [("older", None)]
