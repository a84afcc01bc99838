"""Run folders of version 0.1.0 are scored, predicted with, listed, reported, compared and continued by today's code."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import finetune

FIXTURES = Path(__file__).parent / "fixtures" / "runs_0_1_0"
EXPECTED: dict[str, Any] = json.loads((FIXTURES / "expected.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the folders, since paths in them are relative."""
    return Path(shutil.copytree(FIXTURES, tmp_path_factory.mktemp("stored") / "runs_0_1_0"))


def run_in(folder: Path, *words: str) -> str:
    """Run a command there and return what it says."""
    done = finetune(*words, folder=folder)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.mark.parametrize("run", sorted(EXPECTED["runs"]))
def test_a_stored_run_is_scored_as_it_was(folder: Path, run: str) -> None:
    run_in(folder, "evaluate", f"run={run}", "report=false", "workers=0", "device=cpu", "bootstrap=0")
    (metrics,) = sorted((folder / run / "evaluations").glob("*/metrics.json"))[-1:]
    found = json.loads(metrics.read_text())["test"]
    expected = EXPECTED["runs"][run]["evaluate"]
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected, abs=1e-5)
