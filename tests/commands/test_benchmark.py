"""The command benchmark: rates of input, computation, bare loop and run on this machine, and what follows from them."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import command
import pytest
import torch
from configured import settings_for
from tiny import strategy_config, tiny_images, tiny_table

from finetune.config.settings.phases import build_strategy
from finetune.config.settings.training_groups import OptimizerSettings, Schedule, TrainerSettings
from finetune.models.network import build_network
from finetune.training.fit import Recipe
from finetune.training.losses import CrossEntropy
from finetune.training.throughput.advice import ThroughputReport, advice
from finetune.training.throughput.throughput import PhaseBenchmark, interleave, median_ratio

REPORT = ThroughputReport(
    phase="full", trains=True, device="cuda", precision="bf16-mixed", batch_size=32, workers=8, pipeline=900.0,
    compute=300.0, bare=290.0, run=288.0, run_to_bare=0.99, peak_memory=10**9, largest_batch=64,
)  # fmt: skip
SMALL = ["model=timm", "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "trainer.threads=1"]


def finetune(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return command.finetune("benchmark", *SMALL, "batches=2", "repeats=1", *arguments, folder=folder)


@pytest.mark.parametrize(("strategy", "trains"), [("full", True), ("frozen", False)])
def test_rates_are_printed_and_written(tmp_path: Path, strategy: str, trains: bool) -> None:
    found = finetune(tmp_path, f"strategy={strategy}", "callbacks=ema", "output=speed.json")
    assert found.returncode == 0, found.stderr
    document = json.loads((tmp_path / "speed.json").read_text())
    assert document["trains"] == trains
    assert all(document[name] > 0 for name in ("pipeline", "compute", "bare", "run", "limit", "run_to_limit"))
    assert document["peak_memory"] > 10**8 and document["largest_batch"] > 32 and document["advice"]
    assert "of the limit" in found.stdout and "largest batch that fits (estimated)" in found.stdout
    assert list(tmp_path.glob("runs*")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["phase=prob"], "phase=prob is not a phase of lp_ft (probe, finetune). Did you mean 'probe'?"),
        (["batches=0"], "batches=0 must be a whole number of 1 or more"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    found = finetune(tmp_path, *arguments)
    assert (found.returncode, found.stderr.count("\n")) == (2, 1) and message in found.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pipeline": 200.0}, "data.workers=16"),
        ({"workers": 0}, "data.workers=4"),
        ({"device": "cpu", "precision": "32-true", "workers": 0, "pipeline": 900.0}, "data.pixel_cache=true"),
        ({"precision": "32-true"}, "trainer.precision=bf16-mixed"),
        ({"device": "cpu"}, "trainer.precision=32-true"),
        ({"largest_batch": 512}, "data.batch_size=64"),
        ({"largest_batch": 16}, "model.grad_checkpointing=true"),
        ({"run_to_bare": 0.9}, "trainer.log_every=50"),
        ({}, "Nothing"),
    ],
)
def test_advice_names_the_setting(changes: dict[str, Any], words: str) -> None:
    assert words in " ".join(advice(replace(REPORT, **changes)))


def test_the_limit_is_the_slower_part_or_both_in_turn() -> None:
    assert REPORT.limit == 300.0
    assert replace(REPORT, workers=0).limit == pytest.approx(225.0)


def test_measurements_take_turns() -> None:
    seen: list[str] = []

    def measure(name: str) -> float:
        seen.append(name)
        return float(len(seen))

    found = interleave({"a": lambda: measure("a"), "b": lambda: measure("b")}, 2)
    assert seen == ["a", "b", "a", "b"] and found == {"a": [1.0, 3.0], "b": [2.0, 4.0]}
    assert median_ratio(found["b"], found["a"]) == pytest.approx((2 + 4 / 3) / 2)


def test_what_a_batch_keeps_grows_with_it(tmp_path: Path) -> None:
    table = tiny_table(train=24, val=8, test=8)
    network = build_network("test_resnet", num_classes=10, weights="none", image_size=64)
    recipe = Recipe(
        CrossEntropy(),
        settings_for(OptimizerSettings),
        settings_for(Schedule, "constant", 0.0, 1.0),
        settings_for(TrainerSettings, "cpu", 1),
    )
    phase = build_strategy(strategy_config("full")).phases[0]
    subject = PhaseBenchmark(network, phase, tiny_images(table, network), recipe, batches=1, folder=tmp_path)
    batch = next(subject.endless())
    half = {name: value[:4] for name, value in batch.items()}
    parameters = sum(value.numel() for value in network.parameters()) * 4
    assert subject.kept_bytes(batch) == pytest.approx(2 * subject.kept_bytes(half), rel=0.05, abs=parameters)
    assert torch.is_grad_enabled()
