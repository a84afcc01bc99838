"""Entries: every value of a run by its name, whatever state its folder is in."""

import os
import platform
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.errors import ConfigError
from finetune.report.runs_table.entries import RunEntry, find_entries
from finetune.runs.history import RunHistory
from finetune.runs.run import Run, write_json

CONFIG: dict[str, Any] = {
    "seed": 0, "monitor": "val/accuracy", "mode": "max", "tags": ["old", "big"], "optimizer": {"lr": 1e-5},
    "model": {"name": "resnet18"}, "strategy": {"name": "lora", "rank": 8},
    "data": {"root": "here/photos", "source": {"_target_": "finetune.data.sources.folder"}},
}  # fmt: skip


def make_run(path: Path, accuracy: float | None = None, **config: Any) -> Run:
    run = Run.create(path, config={**CONFIG, **config}, command=["finetune"], seed=0)
    if accuracy is not None:
        score = {"value": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.05}
        write_json(run.metrics_file, {"test": {"accuracy": score}, "n": {"test": 30}, "per_class": {"test": []}})
        run.update(status="finished", seconds=61.5)
    return run


def only(root: Path) -> RunEntry:
    (entry,) = find_entries([root])
    return entry


def test_settings_metrics_and_record_are_found_by_name(tmp_path: Path) -> None:
    run = make_run(tmp_path / "mobile-lora" / "2026-11-25_06-46-55", 0.9)
    entry = only(tmp_path)
    expected = {
        "name": "mobile-lora", "path": str(run.path), "status": "finished", "strategy": "lora", "model": "resnet18",
        "data": "photos", "time": 61.5, "id": run.record["id"], "optimizer.lr": 1e-5, "strategy.rank": 8,
        "test/accuracy": 0.9, "test/accuracy_low": 0.8, "n/test": 30, "versions.python": platform.python_version(),
        "tags": '["old", "big"]', "wandb": None, "nothing": None,
    }  # fmt: skip
    assert {key: entry.value(key) for key in expected} == expected
    assert entry.interval("test/accuracy") == pytest.approx((0.8, 0.95)) and entry.interval("n/test") is None


def test_unfinished_run_shows_its_best_epoch(tmp_path: Path) -> None:
    history = RunHistory(make_run(tmp_path / "a").history_file)
    for step, accuracy in enumerate((0.5, 0.8, 0.7)):
        scores = {"val/accuracy": accuracy, "val/loss": -accuracy}
        history.append({"step": step, "epoch": step, "train/loss": step, **scores})
    entry = only(tmp_path)
    values = [entry.value(key) for key in ("val/accuracy", "val/loss", "train/loss", "epoch")]
    assert values == [0.8, -0.8, 2, 2]
    assert entry.value("status") == "running"  # this process is still there


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: run.record_file.write_text(""),
        lambda run: run.record_file.write_text("[]"),
        lambda run: run.record_file.write_text('{"id": "x", "status": "running"}'),
        lambda run: run.config_file.unlink(),
        lambda run: run.config_file.write_text("- a\n- b"),
        lambda run: run.config_file.write_bytes(b"\xff\xfe: {"),
        lambda run: run.metrics_file.write_text('{"test": {'),
        lambda run: run.update(status="running", pid="?", process_started="1", host=os.uname().nodename),
    ],
)  # fmt: skip
def test_broken_folders_are_listed_as_damaged_beside_the_others(tmp_path: Path, damage: Any) -> None:
    make_run(tmp_path / "whole", 0.9)
    damage(make_run(tmp_path / "broken", 0.8))
    found = {entry.value("name"): entry.value("status") for entry in find_entries([tmp_path])}
    assert found == {"whole": "finished", "broken": "damaged"}


def test_parts_of_another_shape_are_not_a_failure(tmp_path: Path) -> None:
    run = make_run(tmp_path / "odd", 0.9)
    run.config_file.write_text(yaml.safe_dump({"model": "resnet18", "data": None, "strategy": ["lora"]}))
    run.update(wandb="offline")
    entry = only(tmp_path)
    found = [entry.value(key) for key in ("model", "data", "status", "test/accuracy")]
    assert found == ["resnet18", None, "finished", 0.9]


def test_what_is_inside_a_run_is_no_run_and_the_newest_comes_first(tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        make_run(tmp_path / "runs" / name, 0.5)
    make_run(tmp_path / "runs" / "third" / "copy", 0.5)
    make_run(tmp_path / "sweeps" / "lr" / "trials" / "0")
    names = [entry.value("name") for entry in find_entries([tmp_path / "runs", tmp_path / "sweeps"])]
    assert names == ["lr/trials/0", "third", "second", "first"]


def test_folders_without_runs_say_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no run below .* runs=PATH"):
        find_entries([tmp_path])
    with pytest.raises(ConfigError, match="There is no folder .* runs=PATH"):
        find_entries([tmp_path / "nowhere"])
