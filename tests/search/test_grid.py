"""A multirun: Hydra's grammar, and one fresh process per job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.config import register
from finetune.errors import ConfigError
from finetune.runs import Run
from finetune.search.grid import expand, run_grid

register()


@pytest.mark.parametrize(
    ("overrides", "jobs"),
    [
        (["seed=1,2"], [["seed=1"], ["seed=2"]]),
        (["seed=choice(1,2)", "mode=max"], [["seed=1", "mode=max"], ["seed=2", "mode=max"]]),
        (["seed=range(1,4)"], [["seed=1"], ["seed=2"], ["seed=3"]]),
        (["a=1,2", "b=x,y"], [["a=1", "b=x"], ["a=1", "b=y"], ["a=2", "b=x"], ["a=2", "b=y"]]),
        (["tags=[a,b]"], [["tags=[a,b]"]]),
    ],
)
def test_grid_is_what_hydra_means(overrides: list[str], jobs: list[list[str]]) -> None:
    assert expand(overrides) == jobs


def test_nothing_starts_when_a_job_is_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="strategy"):
        run_grid(["-m", "strategy=frozen,frozn"])
    assert "Job" not in capfd.readouterr().out


def test_other_launchers_are_refused() -> None:
    with pytest.raises(ConfigError, match="process of its own"):
        run_grid(["-m", "seed=1,2", "hydra/launcher=joblib"])


@pytest.mark.slow
def test_each_job_of_a_multirun_is_a_fresh_process_with_its_composed_config(tmp_path: Path) -> None:
    arguments = [
        "-m", "optimizer.lr=1e-3,1e-4", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2",
        "trainer.threads=1",
        "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "debug=quick", "strategy=full",
    ]  # fmt: skip
    command = [sys.executable, "-m", "finetune", *arguments]
    found = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=400
    )
    assert found.returncode == 0, found.stdout + found.stderr
    runs = Run.all(tmp_path / "runs")
    assert [run.config["optimizer"]["lr"] for run in runs] == [1e-3, 1e-4]
    assert len({run.record["pid"] for run in runs}) == 2
    assert len({run.record["wandb"]["id"] for run in runs}) == 2
    assert all(run.status == "finished" and run.metrics_file.exists() for run in runs)
    assert len(list(tmp_path.glob("runs/*/*"))) == 2, "no rank makes a folder of its own"
    assert len(list(tmp_path.glob("runs/*/*/wandb/offline-run-*"))) == 2
