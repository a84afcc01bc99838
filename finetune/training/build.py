"""Typed parts from a configuration: table, network, recipe, callbacks, loggers."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from finetune.config.compose import instantiate_target
from finetune.config.policies import MIXUP
from finetune.config.settings.checked import Target
from finetune.config.settings.data_groups import CacheSettings, DataSettings, Imbalance
from finetune.config.settings.roots import ImageSettings, PartsSettings, PretrainRootSettings, TrainSettings
from finetune.config.settings.run_groups import LoggerSettings
from finetune.config.settings.training_groups import (
    Augment,
    BalanceSettings,
    ModelSettings,
    TrainerSettings,
    ViewSettings,
)
from finetune.data.augmentation.settings import NOT_AUGMENTED
from finetune.data.cache.file_digests import KnownFiles
from finetune.data.cache.store import Cache, parse_size
from finetune.data.datamodule import ImageData
from finetune.data.decoding import allow_megapixels
from finetune.data.folds import split_table
from finetune.data.pixel_cache import PixelCache
from finetune.data.resampling import Balance
from finetune.data.sequences.batches import build_datamodule
from finetune.data.sequences.frame_store import sequence_limit
from finetune.data.sources.table_builder import require_classes
from finetune.data.table import ImageTable, value_range_of
from finetune.data.verification import verify_images
from finetune.errors import ConfigError
from finetune.features.extract import FeatureSettings
from finetune.models.adapters import add_lora
from finetune.models.heads.modules import HeadSpec
from finetune.models.heads.settings import check_loss, check_solver_task, head_settings
from finetune.models.network import Network, build_network
from finetune.runs.run import Run
from finetune.runs.wandb import Tracker, start_wandb
from finetune.runtime.device import accelerator_device, image_workers, prepare_process
from finetune.training.callbacks.epoch_metrics import check_monitor
from finetune.training.fit import Recipe
from finetune.training.imbalance import build_image_weights, build_loss, build_resampling, minority_augmentation
from finetune.training.losses import is_convex
from finetune.training.mixing import FeatureMixing, build_mixing
from finetune.training.policy_checks import check_solver_policies
from finetune.training.regularizers import Regularizer
from finetune.training.sequence_checks import check_sequences
from finetune.training.solved_head import HeadPlan

log = logging.getLogger(__name__)


def open_cache(cache: CacheSettings) -> Cache | None:
    """Return the cache on disk that settings name, or None where it is switched off."""
    if not cache.enabled:
        return None
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune"
    folder = Path(cache.dir).expanduser() if cache.dir is not None else usual
    return Cache(folder.absolute(), parse_size(cache.max_size))


def known_files(cache: Cache | None) -> KnownFiles | None:
    """Return what is known of files that were read before."""
    return None if cache is None else KnownFiles(cache.folder / "files.sqlite")


def build_features(
    features: ViewSettings,
    tta_views: int,
    cache: Cache | None,
    *,
    augmented: bool,
    balance: BalanceSettings | None = None,
) -> FeatureSettings:
    """Return how features of a backbone at rest are made and kept.

    Raises:
        ConfigError: All views would be the same.
    """
    for name, number in {"features.views": features.views, "tta_views": tta_views}.items():
        if number > 1 and not augmented:
            raise ConfigError(
                f"{name}={number} would take the same image as often, since nothing is augmented. Choose "
                f"augment=light, or set {name}=1."
            )
    repeat_views = FeatureSettings.repeat_views if balance is None else balance.views
    return FeatureSettings(features.views, tta_views, features.dtype, cache, repeat_views)


def load_table(data: DataSettings, stored: Path | None = None, known: KnownFiles | None = None) -> ImageTable:
    """Return the table of images, checked and split.

    Args:
        data: Where they are from.
        stored: The run's stored table; where it exists (a resumed run), its splits are used again.
        known: Files that were read before, which need not be read again where they have not changed.
    """
    allow_megapixels(data.max_megapixels)
    table: ImageTable = instantiate_target(data.source)
    if stored is not None and stored.exists():
        return table.with_splits_of(stored)
    return check_and_split(table, data, known)


def check_and_split(table: ImageTable, data: DataSettings, known: KnownFiles | None) -> ImageTable:
    """Return a source's images without those that cannot be read, all of them in a split."""
    allow_megapixels(data.max_megapixels)
    require_classes(table)
    return split_table(verify_images(table, data.unreadable, known, data.range_given), data.splits)


def load_network(settings: PartsSettings, table: ImageTable) -> Network:
    """Return the network with its weights, a new head, and the strategy's adapters where it has any.

    Args:
        settings: What is to be trained.
        table: The images, which decide the number of classes.
    """
    check_sequences(settings, table)
    head = head_settings(settings.head, seed=settings.seed)[0]
    network = load_backbone(settings.model, settings.data, table, head, sequence_limit(table))
    adapter = settings.strategy.adapter
    if adapter is not None:
        add_lora(network.backbone, rank=adapter.rank, alpha=adapter.alpha, targets=adapter.targets)
    return network


def load_backbone(
    model: ModelSettings, data: DataSettings, table: ImageTable, head: HeadSpec | None = None, frames: int | None = None
) -> Network:
    """Return a network with its weights and a new head, by default a linear one of single images."""
    options = {entry.name: getattr(model, entry.name) for entry in fields(model)}
    network = build_network(num_classes=table.num_classes, head=head or HeadSpec(), frames=frames, **options)
    network.spec = replace(network.spec, exact=data.exact_pixels, value_range=value_range_of(table.store))
    return network


def load_images(settings: PartsSettings, table: ImageTable, network: Network, cache: Cache | None = None) -> ImageData:
    """Return the batches of images that the network's weights expect, augmented and drawn for training.

    Raises:
        ConfigError: Pixels are to be kept, but there is no cache, or images cannot be made on the device that trains.
    """
    return images_of(
        settings.data, settings.augment, settings.trainer.accelerator, settings.seed, table, network, cache,
        draws=build_resampling(settings.imbalance, settings.data, table),
        repeats=repeats_of(settings.imbalance, settings.data, settings.augment, network),
    )  # fmt: skip


def load_plain_images(
    settings: ImageSettings, trainer: TrainerSettings, table: ImageTable, network: Network, cache: Cache | None = None
) -> ImageData:
    """Return the batches of images as evaluation sees them, each as often as any other."""
    return images_of(settings.data, NOT_AUGMENTED, trainer.accelerator, settings.seed, table, network, cache)


def images_of(
    data: DataSettings, augment: Augment, accelerator: str, seed: int, table: ImageTable, network: Network,
    cache: Cache | None, *, draws: Balance | None = None, repeats: Augment | None = None,
) -> ImageData:  # fmt: skip
    """Return batches of images.

    Args:
        data: How they are read.
        augment: How they are varied.
        accelerator: Where the network is computed, which decides who reads.
        seed: Of draws and variations.
        table: The images.
        network: Whose weights expect them.
        cache: Where pixels may be kept.
        draws: How training images are drawn; None for each as often as any other.
        repeats: How draws of rare classes that are repeats are varied; None where all draws are varied alike.

    Raises:
        ConfigError: Pixels are to be kept, but there is no cache, or images cannot be made on the device that trains.
    """
    if data.pixel_cache and cache is None:
        raise ConfigError("data.pixel_cache=true needs the cache. Set cache.enabled=true, or leave it out.")
    device = accelerator_device(accelerator)
    options: dict[str, Any] = {
        "batch_size": data.batch_size,
        "eval_batch_size": data.eval_batch_size,
        "workers": image_workers(device, torch.cuda.device_count()) if data.workers is None else data.workers,
        "seed": seed,
        "device_pixels": data.device_pixels,
    }
    images = build_datamodule(table)(
        table,
        network.spec,
        augment,
        balance=draws or Balance("none", ()),
        repeats=None if repeats is None else ImageData(table, network.spec, repeats, **options),
        pixel_cache=PixelCache(cache, network.spec, augment) if data.pixel_cache and cache is not None else None,
        **options,
    )
    if images.device_pixels and device.type != "cuda":
        log.warning("data.device_pixels=true is for GPUs: here images are made on the CPU, one after the other.")
    return images


def repeats_of(imbalance: Imbalance, data: DataSettings, augment: Augment, network: Network) -> Augment | None:
    """Return how draws of rare classes that are repeats are varied; None where all draws are varied alike."""
    if imbalance != "augment_minority":
        return None
    return minority_augmentation(augment, channels=network.spec.channels, device_pixels=data.device_pixels)


def build_recipe(settings: PartsSettings, table: ImageTable, cache: Cache | None = None) -> Recipe:
    """Return loss, optimizer, schedule and machine settings, checked against the table's task."""
    loss = build_loss(settings.loss, settings.imbalance, settings.data, settings.balance, table)
    check_monitor(settings.monitor, table.task, table.num_classes)
    mixed_features = FeatureMixing(settings.augment.mixup or MIXUP, table.num_classes)
    return Recipe(
        loss=loss,
        optimizer=settings.optimizer,
        schedule=settings.schedule,
        trainer=prepare_machine(settings.trainer),
        mixing=build_mixing(settings.augment, num_classes=table.num_classes, task=table.task),
        feature_mixing=mixed_features if settings.label_noise == "mixup" else None,
        regularizer=Regularizer(settings.regularize.l2_sp, settings.regularize.l1),
        seed=settings.seed,
        monitor=settings.monitor,
        features=build_features(
            settings.features, settings.tta_views, cache, augmented=settings.augment.enabled, balance=settings.balance
        ),
        head=build_plan(settings, loss, table),
        image_weights=build_image_weights(settings, loss, table),
    )


def build_plan(settings: PartsSettings, loss: torch.nn.Module, table: ImageTable) -> HeadPlan:
    """Return how the head comes by its weights on cached features."""
    spec, solver = head_settings(settings.head, seed=settings.seed)
    if solver is not None:
        check_loss(solver, loss=settings.loss.name, convex=is_convex(loss))
        check_solver_task(solver, table.task)
        check_solver_policies(solver, settings)
    return HeadPlan(spec, solver, settings.data.splits.group)


def prepare_machine(trainer: TrainerSettings) -> TrainerSettings:
    """Set the process up for a machine, with torch's threads, and return how it is used."""
    prepare_process(accelerator_device(trainer.accelerator))
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    return trainer


def build_callbacks(
    entries: Mapping[str, Target | None], *extra: Callable[[], Callback]
) -> Callable[[], Sequence[Callback]]:
    """Return a function that makes the configured callbacks anew, for each phase; an entry set to null is left out."""

    def make_all() -> Sequence[Callback]:
        configured = [instantiate_target(entry) for entry in entries.values() if entry]
        return [*configured, *(make() for make in extra)]

    return make_all


def build_tracker(run: Run, settings: TrainSettings | PretrainRootSettings) -> Tracker | None:
    """Return the W&B tracker of a run, or None where the logger group has none."""
    options = settings.logger.wandb
    if options is None:
        return None
    return start_wandb(
        run,
        dict(settings.document),
        project=options.project,
        entity=options.entity,
        mode=options.mode,
        checkpoints=options.checkpoints,
        name=f"{run.path.parent.name}/{run.path.name}",
        group=settings.group,
        job_type=settings.verb,
        tags=list(settings.tags),
        monitor=settings.monitor,
        mode_of_monitor=settings.mode,
    )


def build_loggers(run: Run, logger: LoggerSettings) -> list[Logger]:
    """Return the loggers of a run besides the tracker: each entry of the logger group that has a target."""
    return [instantiate_target(entry, save_dir=str(run.path)) for entry in logger.others.values()]
