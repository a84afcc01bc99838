"""The Lightning trainer: how devices, precision and limits become one."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import FSDPStrategy, Strategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from finetune.config.settings.training_groups import TrainerSettings
from finetune.errors import ConfigError
from finetune.runtime.device import DevicePass, accelerator_device, pass_of


def build_trainer(settings: TrainerSettings, *, folder: Path, **options: Any) -> pl.Trainer:
    """Return a Lightning trainer; batches are shared among ranks by our own samplers.

    Raises:
        ConfigError: The machine cannot do what the settings ask for.
    """
    try:
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            strategy=_strategy(settings),
            num_nodes=settings.num_nodes,
            precision=settings.precision,  # type: ignore[arg-type]
            deterministic=settings.deterministic,
            # cuDNN may try several kernels for each shape of images, and go on with the fastest
            benchmark=accelerator_device(settings.accelerator).type == "cuda" and not settings.deterministic,
            limit_train_batches=settings.limit_batches,
            limit_val_batches=settings.limit_batches,
            default_root_dir=folder,
            use_distributed_sampler=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **{"enable_checkpointing": False, **options},
        )
    except (MisconfigurationException, ValueError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(
            f"The trainer cannot be set up as asked: {message} Check trainer.* (try trainer=cpu)."
        ) from error
    if settings.precision.startswith("16") and isinstance(trainer.accelerator, CPUAccelerator):
        raise ConfigError(
            f"trainer.precision={settings.precision} needs a GPU. On the CPU use bf16-mixed (often slower) or 32-true."
        )
    return trainer


def _strategy(settings: TrainerSettings) -> str | Strategy:
    if settings.strategy != "fsdp":
        return settings.strategy
    if not torch.cuda.is_available():
        raise ConfigError(
            "trainer=fsdp needs GPUs, and none is here. Use trainer=ddp trainer.accelerator=cpu, or trainer=cpu."
        )
    return FSDPStrategy(use_orig_params=True, state_dict_type="full")


def start_pass(settings: TrainerSettings, *, join: bool = False) -> DevicePass:
    """Return where networks are computed outside a training.

    Args:
        settings: How the machine is used.
        join: Whether the processes of several devices are to meet, if no training has brought them together.
    """
    trainer = build_trainer(settings, folder=Path(), logger=False, enable_progress_bar=False)
    launcher = trainer.strategy.launcher
    if join and trainer.world_size > 1 and launcher is not None and not torch.distributed.is_initialized():
        launcher.launch(trainer.strategy.setup_environment, trainer=trainer)
    return pass_of(trainer)
