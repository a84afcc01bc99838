"""The command line as a user meets it, in processes of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import command
import pytest

from finetune.cli import is_multirun, with_config_name, with_resumed_folder
from finetune.errors import ConfigError
from finetune.runs.run import Run

TINY = [
    "model.name=test_efficientnet", "model.weights=none", "data.image_size=32",
    "trainer=cpu", "trainer.threads=1", "bootstrap=20",
    "report=false", "explain.images=0",
]  # fmt: skip


def finetune(*arguments: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command in a folder and return what came of it."""
    return subprocess.run(
        [sys.executable, "-m", "finetune", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_first_word_is_rewritten_to_the_config_name() -> None:
    assert with_config_name(["evaluate", "run=last"]) == ["--config-name", "evaluate", "run=last"]
    assert with_config_name(["seed=1"]) == ["seed=1"]
    assert with_config_name(["--help"]) == ["--help"]


def test_misspelt_command_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'evaluate'"):
        with_config_name(["evalute"])


def test_multirun_is_seen_but_not_when_something_is_only_shown() -> None:
    assert is_multirun(["-m", "a=1,2"])
    assert not is_multirun(["-m", "a=1,2", "--cfg", "job"])
    assert not is_multirun(["a=1"])


def test_resumed_folder_is_rewritten_once(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "runs" / "a" / "b", config={}, command=[], seed=0)
    once = with_resumed_folder(["resume=last", f"runs={tmp_path / 'runs'}"])
    assert f"hydra.run.dir='{run.path}'" in once
    assert with_resumed_folder(once) == once


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job", "--resolve"]])
def test_looking_at_the_config_imports_no_torch(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import sys, atexit; sys.argv = ['finetune', *sys.argv[1:]]\n"
        "heavy = {'torch', 'timm', 'wandb', 'pandas', 'numpy'}\n"
        "atexit.register(lambda: print('HEAVY', sorted(heavy & set(sys.modules))))\n"
        "from finetune.cli import main; main()"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    assert "HEAVY []" in found.stdout


def test_help_lists_commands_and_groups(tmp_path: Path) -> None:
    text = finetune("--help", folder=tmp_path).stdout
    for word in ("evaluate", "predict", "strategy", "lp_ft", "data=folder", "-m"):
        assert word in text
    assert " _base" not in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tran"], "'train'"),
        (["optimzer.lr=1"], "'optimizer'"),
        (["modle=mobile"], "'model'"),
        (["optimizer.lrr=1"], "'optimizer.lr'"),
        (["strategy=lpft"], "'lp_ft'"),
        (["strategy.epochz=1"], "'strategy.epochs'"),
        (["optimizer.lr=fast"], "optimizer.lr"),
        (["predict", "inptu=x"], "'input'"),
        (["resume=lst"], "no run"),
        (["-m", "optimizer.lrr=1,2"], "'optimizer.lr'"),
        (["data=folder"], "data.root"),
        (["pool.devices=2"], "Type -m"),
        (["-m", "pool.devises=2"], "'pool.devices'"),
        (["a=b=c("], "finetune:"),
        (["runs=/proc/none"], "runs="),
    ],
)
def test_wrong_words_give_one_clear_line_and_exit_code_2(tmp_path: Path, arguments: list[str], expected: str) -> None:
    found = finetune(*arguments, folder=tmp_path)
    assert found.returncode == 2, found.stderr
    lines = [line for line in found.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, found.stderr
    assert expected in lines[0]
    assert not (tmp_path / "runs").exists(), "a refused run leaves nothing behind"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["data=folder", "data.root=photoz"], "'photos'"),
        (["model=timm", "model.name=resnet5O"], "'resnet50'"),
        (["optimizer.name=adamx", "data.image_size=32", "model.weights=none"], "'adam"),
        (["trainer=cpu", "trainer.precision=16-mixed", "data.image_size=32"], "needs a GPU"),
        (["callbacks=ema", "callbacks.ema.decay=2", "data.image_size=32"], "decay"),
        (["model=resnet50"], "model.weights=/path/to/file.safetensors"),
    ],
)
def test_wrong_values_leave_nothing_behind(tmp_path: Path, arguments: list[str], expected: str) -> None:
    (tmp_path / "photos").mkdir()
    found = command.finetune(*arguments, folder=tmp_path)
    assert found.returncode == 2, found.stderr
    assert expected in found.stderr
    assert "Traceback" not in found.stderr
    lines = [line for line in found.stderr.splitlines() if not line.startswith("Loading pretrained weights")]
    assert len(lines) == 1, found.stderr
    assert not (tmp_path / "runs").exists()


def test_a_run_writes_its_folder_and_is_evaluated_and_predicted(tmp_path: Path) -> None:
    found = finetune(*TINY, "strategy=frozen", "strategy.epochs=2", folder=tmp_path)
    assert found.returncode == 0, found.stderr
    (run,) = Run.all(tmp_path / "runs")
    assert run.status == "finished"
    files = "config.yaml run.json metrics.csv metrics.json predictions/val.parquet predictions/test.parquet train.log"
    files += (
        " checkpoints/best.ckpt checkpoints/last.ckpt model/weights.safetensors model/model.json .hydra/overrides.yaml"
    )
    for file in files.split():
        assert (run.path / file).exists(), file
    assert "accuracy" in found.stdout
    again = command.finetune("evaluate", "run=last", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    photo = tmp_path / "new" / "one.png"
    photo.parent.mkdir()
    from PIL import Image

    Image.new("L", (40, 30), 128).save(photo)
    predicted = command.finetune("predict", "run=last", "input=new", folder=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    assert "one.png" in (tmp_path / "predictions.csv").read_text()


def wait_for(condition: "object", seconds: float = 120) -> None:
    """Wait until a function returns something true."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def start(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start the command in a folder."""
    program = [sys.executable, "-m", "finetune", *arguments]
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(
            program, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=output, stderr=output
        )


def weights(run: Run) -> dict[str, "object"]:
    """Return the final weights of a run."""
    import torch

    return dict(torch.load(run.last_checkpoint, weights_only=True)["state_dict"])


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["probe", "finetune"])
def test_kill_9_and_resume_gives_the_weights_of_an_uninterrupted_run(tmp_path: Path, phase: str) -> None:
    arguments = [
        *TINY,
        "strategy=lp_ft",
        "strategy.head_epochs=40",
        "strategy.epochs=3",
        "optimizer.lr=1e-2",
        "logger=none",
    ]
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    assert finetune(*arguments, folder=tmp_path / "whole").returncode == 0
    process = start(tmp_path / "broken", *arguments)

    def reached() -> bool:
        rows = [
            line.split(",")
            for file in (tmp_path / "broken").glob("runs/*/*/metrics.csv")
            for line in file.read_text().splitlines()[1:]
        ]
        return process.poll() is not None or any(row[2:3] == [phase] and row[1] != "0" for row in rows)

    wait_for(reached)
    assert process.poll() is None, (tmp_path / "broken" / "output").read_text()
    process.send_signal(signal.SIGKILL)
    process.wait()
    (run,) = Run.all(tmp_path / "broken" / "runs")
    assert run.status == "interrupted"
    resumed = finetune("resume=last", folder=tmp_path / "broken")
    assert resumed.returncode == 0, resumed.stderr
    (whole,) = Run.all(tmp_path / "whole" / "runs")
    assert run.status == "finished"
    import torch

    expected, found = weights(whole), weights(run)
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []  # type: ignore[arg-type]
    assert run.history_file.read_text() == whole.history_file.read_text()
    refused = finetune("resume=last", folder=tmp_path / "broken")
    assert refused.returncode == 2
    assert "finished" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)])
def test_a_stopped_run_is_interrupted_and_says_so(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = start(tmp_path, *TINY, "strategy=full", "strategy.epochs=200")
    wait_for(lambda: process.poll() is not None or list(tmp_path.glob("runs/*/*/checkpoints/last.ckpt")))
    process.send_signal(number)
    assert process.wait(timeout=60) == code, (tmp_path / "output").read_text()
    (run,) = Run.all(tmp_path / "runs")
    assert run.record["status"] == "interrupted"
    assert f"finetune resume={run.path}" in (tmp_path / "output").read_text()
