"""A run that is killed in its ending is not finished, and what is missing is made when it goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.errors import ConfigError
from finetune.runs.run import Run

TINY = [
    "model.name=test_resnet", "model.weights=none", "data.image_size=32", "trainer=cpu", "trainer.threads=1",
    "bootstrap=20", "explain.images=0", "strategy=full", "strategy.epochs=1", "trainer.limit_batches=2",
]  # fmt: skip
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
# where in the ending: what is replaced, and by what
PLACES = {
    "weights": f"""
import safetensors.torch
def save(state, path):
    Path(path).with_name(".tmpA1b2C3").touch()
    Path(path).touch()
    {KILL}
safetensors.torch.save_file = save""",
    "page": f"""
from finetune.commands import run_end
run_end.write_report = lambda run: {KILL}""",
    "tracker": f"""
from finetune.runs.wandb import Tracker
Tracker.finish = lambda tracker, code: {KILL}""",
}


def finetune(*arguments: str, folder: Path, before: str = "") -> "subprocess.CompletedProcess[str]":
    """Run the command in a fresh process in which something is replaced before."""
    program = f"import os, signal\nfrom pathlib import Path\n{before}\nfrom finetune.cli import main\nmain()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_run_killed_in_its_ending_is_completed(tmp_path: Path, place: str) -> None:
    killed = finetune(*TINY, folder=tmp_path, before=PLACES[place])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (run,) = Run.all(tmp_path / "runs")
    assert run.status == "interrupted"
    again = finetune("resume=last", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert run.record["status"] == "finished"
    assert run.report_file.is_file() and "finished" in run.report_file.read_text()
    assert (run.model_dir / "model.json").is_file()
    assert [path for path in run.path.rglob(".*") if path.name.startswith((".tmp", ".partial-"))] == []
    with pytest.raises(ConfigError, match="nothing to resume"):
        run.check_resumable()


def test_scores_of_some_images_are_marked_as_partial_everywhere(tmp_path: Path) -> None:
    done = finetune(*TINY[:-1], "trainer.limit_batches=1", "data.eval_batch_size=8", "logger=none", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = Run.all(tmp_path / "runs")
    count = run.metrics["partial"]["test"]
    assert count["n"] == 8 < count["of"]
    said = f"test: 8 of {count['of']:,} images (trainer.limit_batches)"
    assert said in " ".join(done.stdout.split())
    assert f"Partial scores: {said}" in run.report_file.read_text()
