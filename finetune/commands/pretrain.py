"""finetune pretrain: from images without labels to weights that a classifier can begin with."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from rich.console import Console
from torch import nn
from torch.optim import Optimizer

from finetune.commands.run_start import locate_run, open_history, record_images
from finetune.config.compose import build
from finetune.data.cache.file_digests import KnownFiles
from finetune.data.datamodule import ImageData
from finetune.data.image_stores import verify
from finetune.data.sequences.frame_store import require_single_images
from finetune.data.sources.unlabelled import is_unlabelled
from finetune.data.table import ImageTable
from finetune.errors import ConfigError, DataError
from finetune.report.pages.pretraining_page import write_metrics, write_pretraining_page, write_weights
from finetune.runs.run import Run
from finetune.runtime.log_filters import quieten
from finetune.training.build import (
    build_loggers,
    build_trainer_settings,
    check_and_split,
    known_files,
    load_images,
    load_network,
    open_cache,
)
from finetune.training.callbacks.checkpoints import CheckpointIO, read_checkpoint
from finetune.training.optimizers import build_optimizer
from finetune.training.phases import Strategy
from finetune.training.pretraining.autoencoder import MaskedAutoencoder
from finetune.training.pretraining.encoder import freeze_pooling, plain_vit
from finetune.training.pretraining.mae_module import EpochEnd, Pretrainer, UnlabelledImages, mae_parameter_groups
from finetune.training.pretraining.settings import PretrainSettings
from finetune.training.run_lifecycle import PRETRAIN, is_first_rank, recorded
from finetune.training.schedules import Schedule, build_scheduler
from finetune.training.trainer import TrainerSettings, build_trainer

_Config = dict[str, Any]


def pretrain(cfg: DictConfig) -> None:
    """Train a masked autoencoder as configured and write its run folder, with weights for `model.weights`."""
    started = time.monotonic()
    quieten()
    run, config = locate_run(cfg, PRETRAIN)
    pl.seed_everything(config["seed"], verbose=False)
    settings, machine = PretrainSettings(**config["pretrain"]), build_machine(config)
    cache = open_cache(config["cache"])
    table = _load_table(config["data"], run.table_file, known_files(cache))
    network = load_network(config, Strategy(PRETRAIN, ()), table)
    encoder = plain_vit(network.backbone, config["model"]["name"])
    freeze_pooling(encoder)
    model = MaskedAutoencoder(encoder, network.spec.channels, settings)
    images = load_images(config, table, network, cache)
    loggers = build_loggers(run, config)
    module = build_module(config, model, machine)
    module.build_optimizer(model)  # what cannot work is said before a run begins
    with recorded(run, config, resume=cfg.resume is not None) as tracker:
        if is_first_rank():
            record_images(run, table)
            _describe(table, config, model)
        last = run.last_checkpoint if run.last_checkpoint.exists() else None
        history = open_history(run, int(read_checkpoint(last)["global_step"]) if last is not None else 0)
        trainer = build_trainer(
            machine,
            folder=run.path,
            logger=[*([tracker.logger] if tracker else []), *loggers] or False,
            callbacks=[EpochEnd(run, history, settings.epochs)],
            plugins=[CheckpointIO()],
            log_every_n_steps=machine.log_every,
            enable_progress_bar=False,
            max_epochs=settings.epochs,
            gradient_clip_val=machine.gradient_clip,
            accumulate_grad_batches=machine.accumulate,
        )
        trainer.fit(module, datamodule=UnlabelledImages(images), ckpt_path=last, weights_only=True)
        if is_first_rank():
            _finish(run, model, images, settings, config["seed"])
            run.update(status="finished")
            _show_end(run, config, time.monotonic() - started)


def build_machine(config: _Config) -> TrainerSettings:
    """Return how the machine is used.

    Raises:
        ConfigError: It would share the weights among GPUs, or mix images.
    """
    machine = build_trainer_settings(config["trainer"])
    if machine.strategy == "fsdp":
        raise ConfigError("finetune pretrain keeps the whole network on each device. Use trainer=ddp in place of fsdp.")
    augment = config["augment"]
    if augment["enabled"] and (augment["mixup"] > 0 or augment["cutmix"] > 0):
        raise ConfigError(
            "Images without labels are not mixed with each other. Set augment.mixup=0 augment.cutmix=0, or take "
            "augment=light."
        )
    return machine


def _load_table(data: _Config, stored: Path, known: KnownFiles | None) -> ImageTable:
    """Return the images: all of a source without labels, else those of the splits that training would make."""
    try:
        table: ImageTable = build(data["source"])
    except DataError as error:
        raise DataError(f"{error} Images without labels are named by data=unlabelled data.root=FOLDER.") from error
    require_single_images(table, "finetune pretrain", "Name the frames as images: data=unlabelled data.root=FOLDER.")
    if stored.exists():
        return table.with_splits_of(stored)
    return verify(table, data["unreadable"], known) if is_unlabelled(table) else check_and_split(table, data, known)


def build_module(config: _Config, model: MaskedAutoencoder, machine: TrainerSettings) -> Pretrainer:
    """Return the steps of the training."""
    optimizer = config["optimizer"]
    if machine.compile:
        model.compile()

    def make(moving: nn.Module) -> Optimizer:
        assert isinstance(moving, MaskedAutoencoder)
        groups = mae_parameter_groups(moving, lr=optimizer["lr"], weight_decay=optimizer["weight_decay"])
        return build_optimizer(optimizer["name"], groups, optimizer["options"], fuse=machine.fuses)

    return Pretrainer(
        model,
        build_optimizer=make,
        build_scheduler=partial(build_scheduler, schedule=Schedule(**config["schedule"])),
        seed=config["seed"],
        channels_last=machine.channels_last,
    )


def _finish(run: Run, model: MaskedAutoencoder, images: ImageData, settings: PretrainSettings, seed: int) -> None:
    """Write weights, final losses and the page."""
    write_weights(run, model)
    write_metrics(run, images)
    write_pretraining_page(run, model, images, settings.images, seed)


def _describe(table: ImageTable, config: _Config, model: MaskedAutoencoder) -> None:
    """Print what is about to be trained."""
    rows, columns = model.grid_size
    seen = min(max(1, int(rows * columns * (1 - model.ratio))), rows * columns - 1)
    kind = "without labels" if is_unlabelled(table) else "of the training split, without their labels"
    name, weights = config["model"]["name"], config["model"]["weights"]
    Console(highlight=False).print(
        f"{len(table.rows('train')):,} images {kind}; {name}, weights: {weights}; "
        f"{seen} of {rows * columns} patches are seen",
        soft_wrap=True,
    )


def _show_end(run: Run, config: _Config, seconds: float) -> None:
    """Print where the weights are, and how they are used."""
    losses = ", ".join(
        f"{split} {scores['loss']['value']:.4f}" for split, scores in run.metrics.items() if split != "n"
    )
    name = config["model"]["name"]
    console = Console(highlight=False)
    for line in (
        f"loss      {losses} after {seconds:.0f} s",
        f"report    {run.report_file}",
        f"next      finetune model=timm model.name={name} model.weights={run.path / 'weights.safetensors'}",
    ):
        console.print(line, soft_wrap=True, markup=False)
