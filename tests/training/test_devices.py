"""A run on several machines: Lightning's own ways of starting it, and one folder for all."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from configured import train_settings

from finetune.config.compose import register
from finetune.runs.run import Run
from finetune.training.trainer import build_trainer

register()


def test_the_configuration_for_two_machines_makes_a_trainer_for_all_their_devices(tmp_path: Path) -> None:
    overrides = ("trainer=ddp", "trainer.num_nodes=2", "trainer.devices=4", "trainer.accelerator=cpu")
    trainer = build_trainer(train_settings(*overrides).trainer, folder=tmp_path)
    assert (trainer.num_nodes, trainer.num_devices, trainer.world_size) == (2, 4, 8)


@pytest.mark.slow
def test_torchrun_on_two_machines_makes_one_run(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "trainer=ddp",
        "trainer.accelerator=cpu", "trainer.num_nodes=2", "trainer.devices=1", "trainer.threads=1", "bootstrap=20",
        "debug=quick", "strategy=full", "logger=none", "hydra.run.dir=runs/mine",
    ]  # fmt: skip
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    place = ["--master-addr=127.0.0.1", f"--master-port={port}"]
    processes = []
    for machine in range(2):
        with (tmp_path / f"{machine}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [*launcher, *place, f"--node-rank={machine}", "-m", "finetune", *arguments],
                    cwd=tmp_path,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    stdout=log,
                    stderr=log,
                )  # fmt: skip
            )
    codes = [process.wait(timeout=300) for process in processes]
    assert codes == [0, 0], "\n".join((tmp_path / f"{machine}.log").read_text()[-2000:] for machine in range(2))
    (run,) = Run.all(tmp_path / "runs")
    assert run.path == tmp_path / "runs" / "mine"
    assert run.status == "finished"
