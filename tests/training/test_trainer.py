"""How the machine is used: what of it may vary from run to run, and what is left as it is known to work."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from configured import settings_for

from finetune.config.settings.training_groups import TrainerSettings
from finetune.training.trainer import build_trainer


@pytest.mark.parametrize(
    ("settings", "cuda", "tried"),
    [
        (settings_for(TrainerSettings, "auto"), True, True),
        (settings_for(TrainerSettings, "gpu"), True, True),
        (settings_for(TrainerSettings, "gpu", deterministic=True), True, False),
        (settings_for(TrainerSettings, "cpu"), True, False),
        (settings_for(TrainerSettings, "auto"), False, False),
    ],
)
def test_kernels_are_tried_on_cuda_unless_all_must_be_deterministic(
    settings: TrainerSettings, cuda: bool, tried: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: dict[str, Any] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(pl, "Trainer", lambda **options: handed.update(options))
    build_trainer(settings, folder=tmp_path)
    assert handed["benchmark"] is tried
    assert handed["deterministic"] is settings.deterministic


@pytest.mark.gpu
@pytest.mark.parametrize("deterministic", [True, False])
def test_the_trainer_tells_cudnn_on_a_gpu(deterministic: bool, tmp_path: Path) -> None:
    build_trainer(settings_for(TrainerSettings, "gpu", 1, deterministic=deterministic), folder=tmp_path, logger=False)
    assert torch.backends.cudnn.benchmark is not deterministic


@pytest.mark.parametrize(
    ("settings", "fuses"),
    [
        (settings_for(TrainerSettings), True),
        (settings_for(TrainerSettings, precision="bf16-mixed"), True),
        (settings_for(TrainerSettings, precision="16-mixed"), False),
        (settings_for(TrainerSettings, strategy="fsdp"), False),
    ],
)
def test_optimizers_are_fused_where_gradients_are_neither_scaled_nor_sharded(
    settings: TrainerSettings, fuses: bool
) -> None:
    assert settings.fuses is fuses
