"""finetune pretrain: from images without labels to weights that a classifier can begin with."""

import time
from pathlib import Path

import pytorch_lightning as pl
from omegaconf import DictConfig

from finetune.commands.run_start import locate_run, open_history, record_images
from finetune.config.compose import instantiate_target
from finetune.config.settings.data_groups import DataSettings
from finetune.config.settings.roots import PretrainRootSettings
from finetune.config.settings.training_groups import TrainerSettings
from finetune.data.cache.file_digests import KnownFiles
from finetune.data.decoding import allow_megapixels
from finetune.data.sequences.frame_store import require_single_images
from finetune.data.sources.unlabelled import is_unlabelled
from finetune.data.table import ImageTable
from finetune.data.verification import verify_images
from finetune.errors import ConfigError, DataError
from finetune.report.console.pretraining_console import describe_pretraining, show_pretraining_end
from finetune.report.pages.pretraining_page import write_metrics, write_pretraining_page, write_weights
from finetune.runtime.log_filters import quieten
from finetune.training.build import (
    build_loggers,
    check_and_split,
    images_of,
    known_files,
    load_backbone,
    open_cache,
    prepare_machine,
)
from finetune.training.callbacks.checkpoints import CheckpointIO, read_checkpoint
from finetune.training.imbalance import build_resampling
from finetune.training.pretraining.autoencoder import MaskedAutoencoder
from finetune.training.pretraining.encoder import freeze_pooling, plain_vit
from finetune.training.pretraining.mae_module import EpochEnd, UnlabelledImages, build_module
from finetune.training.run_lifecycle import is_first_rank, record_outcome
from finetune.training.trainer import build_trainer


def pretrain(cfg: DictConfig) -> None:
    """Train a masked autoencoder as configured and write its run folder, with weights for `model.weights`."""
    started = time.monotonic()
    quieten()
    run, settings = locate_run(cfg, PretrainRootSettings)
    pl.seed_everything(settings.seed, verbose=False)
    plan, trainer_settings = settings.pretrain, pretrain_trainer_settings(settings)
    cache = open_cache(settings.cache)
    table = _load_table(settings.data, run.table_file, known_files(cache))
    network = load_backbone(settings.model, settings.data, table)
    encoder = plain_vit(network.backbone, settings.model.name)
    freeze_pooling(encoder)
    model = MaskedAutoencoder(encoder, network.spec.channels, plan)
    images = images_of(
        settings.data, settings.augment, trainer_settings.accelerator, settings.seed, table, network, cache,
        draws=build_resampling(settings.imbalance, settings.data, table),
    )  # fmt: skip
    loggers = build_loggers(run, settings.logger)
    module = build_module(settings, model, trainer_settings)
    module.build_optimizer(model)  # what cannot work is said before a run begins
    with record_outcome(run, settings, resume=cfg.resume is not None) as tracker:
        if is_first_rank():
            record_images(run, table)
            describe_pretraining(table, settings.model, model)
        last = run.last_checkpoint if run.last_checkpoint.exists() else None
        history = open_history(run, int(read_checkpoint(last)["global_step"]) if last is not None else 0)
        trainer = build_trainer(
            trainer_settings,
            folder=run.path,
            logger=[*([tracker.logger] if tracker else []), *loggers] or False,
            callbacks=[EpochEnd(run, history, plan.epochs)],
            plugins=[CheckpointIO()],
            log_every_n_steps=trainer_settings.log_every,
            enable_progress_bar=False,
            max_epochs=plan.epochs,
            gradient_clip_val=trainer_settings.gradient_clip,
            accumulate_grad_batches=trainer_settings.accumulate,
        )
        trainer.fit(module, datamodule=UnlabelledImages(images), ckpt_path=last, weights_only=True)
        if is_first_rank():
            write_weights(run, model)
            write_metrics(run, images)
            write_pretraining_page(run, model, images, plan.images, settings.seed)
            show_pretraining_end(run, settings.model.name, time.monotonic() - started)


def pretrain_trainer_settings(settings: PretrainRootSettings) -> TrainerSettings:
    """Return how the machine is used.

    Raises:
        ConfigError: It would share the weights among GPUs, or mix images.
    """
    trainer_settings = prepare_machine(settings.trainer)
    if trainer_settings.strategy == "fsdp":
        raise ConfigError("finetune pretrain keeps the whole network on each device. Use trainer=ddp in place of fsdp.")
    augment = settings.augment
    if augment.enabled and (augment.mixup > 0 or augment.cutmix > 0):
        raise ConfigError(
            "Images without labels are not mixed with each other. Set augment.mixup=0 augment.cutmix=0, or take "
            "augment=light."
        )
    return trainer_settings


def _load_table(data: DataSettings, stored: Path, known: KnownFiles | None) -> ImageTable:
    """Return the images: all of a source without labels, else those of the splits that training would make."""
    try:
        table: ImageTable = instantiate_target(data.source)
    except DataError as error:
        raise DataError(f"{error} Images without labels are named by data=unlabelled data.root=FOLDER.") from error
    require_single_images(table, "finetune pretrain", "Name the frames as images: data=unlabelled data.root=FOLDER.")
    if stored.exists():
        return table.with_splits_of(stored)
    allow_megapixels(data.max_megapixels)
    if is_unlabelled(table):
        return verify_images(table, data.unreadable, known, data.range_given)
    return check_and_split(table, data, known)
