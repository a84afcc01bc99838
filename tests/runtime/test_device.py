"""Devices are chosen and cores shared out in one place, for training and for what is done with a run afterwards."""

import os

import pytest
import torch

from finetune.runtime.device import CORES, accelerator_device, choose_device, image_workers

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def available(monkeypatch: pytest.MonkeyPatch, *, cuda: bool = False, mps: bool = False) -> None:
    """Let torch say that there are such devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"), [(True, True, "cuda:0"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_is_the_first_gpu_of_either_kind(
    cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    available(monkeypatch, cuda=cuda, mps=mps)
    assert str(choose_device("auto")) == chosen
    assert accelerator_device("auto").type == accelerator_device("gpu").type == torch.device(chosen).type
    assert accelerator_device("cpu") == CPU


@pytest.mark.parametrize(
    ("own", "allowed", "processes", "workers"),
    [(None, 6, 1, 5), (None, 64, 1, 8), (None, 16, 4, 3), ("4", 64, 1, 3), ("1", 64, 1, 1), (None, 6, 0, 5)],
)
def test_workers_take_the_cores_of_this_process_that_are_left(
    own: str | None, allowed: int, processes: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CORES, raising=False)
    if own is not None:
        monkeypatch.setenv(CORES, own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(allowed)), raising=False)
    assert image_workers(GPU, processes) == workers
    assert image_workers(CPU, processes) == 0
