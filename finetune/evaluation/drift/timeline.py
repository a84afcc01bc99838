"""The evaluations of a run over time: score, interval and drift of each, from its folder alone."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from finetune.runs.run import Run
from finetune.runs.stored_files import read_json

TimelineRow = dict[str, str | int | float | None]

TRAINING = "training"
DRIFTS = ("inputs", "classes", "confidence")
ORIGINS = {"same": "its own", "stored predictions": "its own"}


def timeline(run: Run) -> list[TimelineRow]:
    """Return the evaluations of a run, oldest first, beginning with that at the end of its training.

    A row has created (ISO), when (local time), folder, images, split, n, each metric by its name with the ends of its
    interval (accuracy, accuracy_low, accuracy_high …), drift/<what> and drift/<what>_p, and drifted: the names of what
    has drifted, 'no', or None where that was not measured. A folder that cannot be read is left out.
    """
    rows = [training_row(run, "test")]
    for folder in sorted((run.path / "evaluations").glob("*/")):
        facts, metrics = read_json(folder / "evaluation.json"), read_json(folder / "metrics.json")
        if facts is not None and metrics is not None and isinstance(metrics.get(facts.get("split", "")), dict):
            rows.append(timeline_row(facts, metrics, folder.name))
    known = [row for row in rows if row is not None]
    return sorted(known, key=lambda row: str(row["created"]))


def training_row(run: Run, split: str) -> TimelineRow | None:
    """Return what the run scored at its end, or None where it did not get there."""
    metrics = read_json(run.metrics_file)
    if metrics is None or not isinstance(metrics.get(split), dict):
        return None
    facts = {"created": run.record.get("created"), "split": split, "images": "same"}
    return timeline_row(facts, metrics, TRAINING)


def timeline_row(facts: Mapping[str, Any], metrics: Mapping[str, Any], folder: str) -> TimelineRow:
    """Return an evaluation as a row."""
    split = facts["split"]
    row: TimelineRow = {
        "created": facts.get("created"), "when": local_time(facts.get("created")), "folder": folder,
        "images": describe_source(facts), "split": split, "n": (metrics.get("n") or {}).get(split),
    }  # fmt: skip
    for name, score in metrics[split].items():
        if isinstance(score, dict) and "value" in score:
            row |= {name: score["value"], f"{name}_low": score.get("low"), f"{name}_high": score.get("high")}
    return row | _drift_of(facts.get("drift"))


def _drift_of(drift: Any) -> TimelineRow:
    """Return what an evaluation found of drift."""
    if not isinstance(drift, dict) or "drifted" not in drift:
        return {"drifted": None}
    row: TimelineRow = {"drifted": ", ".join(drift["drifted"]) or "no"}
    for name in DRIFTS:
        if drift.get(name):
            row |= {f"drift/{name}": drift[name]["distance"], f"drift/{name}_p": drift[name]["p"]}
    return row


def describe_source(facts: Mapping[str, Any]) -> str:
    """Return which images were evaluated, in a few words."""
    kind = str(facts.get("images"))
    if kind in ORIGINS:
        return ORIGINS[kind]
    data = facts.get("data") or {}
    named = next((str(data[key]) for key in ("root", "path", "name") if data.get(key)), None)
    return Path(named).name if named is not None else "others"


def local_time(created: Any) -> str | None:
    """Return a time in ISO's form as local time to the minute."""
    try:
        return datetime.fromisoformat(str(created)).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return None
