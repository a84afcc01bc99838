"""The Lightning trainer: how the machine is used.

It decides how devices, precision and limits become a trainer, and what this machine cannot do; what is trained is the
fit's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import FSDPStrategy, Strategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from finetune.errors import ConfigError
from finetune.runtime.device import DevicePass, accelerator_device, pass_of


@dataclass(frozen=True)
class TrainerSettings:
    """How the machine is used.

    Attributes:
        accelerator: cpu, gpu, or auto for the best there is.
        devices: A number of devices, or auto for all.
        strategy: How several devices work together: auto, ddp or fsdp.
        num_nodes: Number of machines.
        precision: 32-true, bf16-mixed or 16-mixed.
        gradient_clip: Largest norm of the gradient; None for no clipping.
        accumulate: Batches per optimizer step.
        compile: Whether the network is compiled.
        channels_last: Whether images and weights are laid out with channels last.
        deterministic: Whether only deterministic operations are allowed.
        log_every: Optimizer steps between two rows of the training loss.
        limit_batches: Most batches of an epoch, for trying things; None for all.
    """

    accelerator: str = "auto"
    devices: Any = "auto"
    strategy: str = "auto"
    num_nodes: int = 1
    precision: str = "32-true"
    gradient_clip: float | None = 1.0
    accumulate: int = 1
    compile: bool = False
    channels_last: bool = True
    deterministic: bool = False
    log_every: int = 10
    limit_batches: int | None = None

    @property
    def fuses(self) -> bool:
        """Whether torch's fused optimizers are known to step as the others do: not on scaled or sharded gradients."""
        return not self.precision.startswith("16") and self.strategy != "fsdp"

    @property
    def tries_kernels(self) -> bool:
        """Whether cuDNN may try several kernels for each shape of images, and go on with the fastest."""
        return accelerator_device(self.accelerator).type == "cuda" and not self.deterministic


def build_trainer(settings: TrainerSettings, *, folder: Path, **options: Any) -> pl.Trainer:
    """Return a Lightning trainer; batches are shared among ranks by our own samplers.

    Raises:
        ConfigError: The machine cannot do what the settings ask for.
    """
    clip = settings.gradient_clip
    if clip is not None and clip < 0:
        raise ConfigError(f"trainer.gradient_clip={clip} is not a norm. Use a number above 0, or null for none.")
    try:
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            strategy=_strategy(settings),
            num_nodes=settings.num_nodes,
            precision=settings.precision,  # type: ignore[arg-type]
            deterministic=settings.deterministic,
            benchmark=settings.tries_kernels,
            limit_train_batches=settings.limit_batches,
            limit_val_batches=settings.limit_batches,
            default_root_dir=folder,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **options,
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
