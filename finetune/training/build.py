"""From a plain configuration to typed parts: table, network, recipe, callbacks, loggers.

It decides which key goes to which argument and resolves what depends on the machine or the data; it never sees a
DictConfig, and what the parts do is theirs.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from finetune.config.compose import build
from finetune.data.cache.file_digests import KnownFiles
from finetune.data.cache.store import Cache, default_dir, parse_size
from finetune.data.datamodule import ImageData
from finetune.data.folds import split_table
from finetune.data.image_stores import verify
from finetune.data.pixel_cache import PixelCache
from finetune.data.sequences.batches import loaders_of
from finetune.data.sequences.frame_store import sequence_limit
from finetune.data.table import ImageTable
from finetune.data.transforms import Augment
from finetune.errors import ConfigError, nearest
from finetune.features.extract import DTYPES, FeatureSettings
from finetune.models.adapters import add_lora
from finetune.models.heads.modules import HeadSpec
from finetune.models.heads.settings import check_loss, check_solver_task, head_settings
from finetune.models.network import Network, build_network
from finetune.runs.run import Run
from finetune.runs.wandb import Tracker, start_wandb
from finetune.runtime.device import accelerator_device, image_workers, prepare_process
from finetune.training.callbacks.epoch_metrics import check_monitor
from finetune.training.fit import OptimizerSettings, Recipe
from finetune.training.imbalance import build_image_weights, build_loss, draws_of, stronger
from finetune.training.losses import is_convex
from finetune.training.mixing import FeatureMixing, build_mixing
from finetune.training.phases import Strategy
from finetune.training.policies import MIXUP, check_words
from finetune.training.regularizers import build_regularizer
from finetune.training.schedules import Schedule
from finetune.training.sequence_checks import check_sequences
from finetune.training.solved_head import HeadPlan
from finetune.training.trainer import TrainerSettings

log = logging.getLogger(__name__)

_Config = dict[str, Any]


def open_cache(cache: _Config) -> Cache | None:
    """Return the cache on disk that a configuration names, or None where it is switched off."""
    if not cache["enabled"]:
        return None
    folder = Path(cache["dir"]).expanduser() if cache["dir"] is not None else default_dir()
    return Cache(folder.absolute(), parse_size(cache["max_size"]))


def known_files(cache: Cache | None) -> KnownFiles | None:
    """Return what is known of files that were read before."""
    return None if cache is None else KnownFiles(cache.folder / "files.sqlite")


def build_features(config: _Config, cache: Cache | None) -> FeatureSettings:
    """Return how features of a backbone at rest are made and kept.

    Raises:
        ConfigError: They cannot be kept so, or all views would be the same.
    """
    features = config["features"]
    if features["dtype"] not in DTYPES:
        raise ConfigError(
            f"features.dtype={features['dtype']} is not one of {', '.join(DTYPES)}.{nearest(features['dtype'], DTYPES)}"
        )
    for name in ("views", "test_views"):
        if features[name] > 1 and not config["augment"]["enabled"]:
            raise ConfigError(
                f"features.{name}={features[name]} would take the same image as often, since nothing is augmented. "
                f"Choose augment=light, or set features.{name}=1."
            )
    views = (config.get("balance") or {}).get("views", FeatureSettings.repeat_views)
    return FeatureSettings(**features, cache=cache, repeat_views=views)


def load_table(data: _Config, stored: Path | None = None, known: KnownFiles | None = None) -> ImageTable:
    """Return the table of images, checked and split.

    Args:
        data: The config's data group.
        stored: The run's stored table; where it exists (a resumed run), its splits are used again.
        known: Files that were read before, which need not be read again where they have not changed.
    """
    table: ImageTable = build(data["source"])
    if stored is not None and stored.exists():
        return table.with_splits_of(stored)
    return check_and_split(table, data, known)


def check_and_split(table: ImageTable, data: _Config, known: KnownFiles | None) -> ImageTable:
    """Return a source's images without those that cannot be read, all of them in a split."""
    return split_table(verify(table, data["unreadable"], known), **data["splits"])


def load_network(config: _Config, strategy: Strategy, table: ImageTable) -> Network:
    """Return the network with its weights, a new head, and the strategy's adapters where it has any.

    Args:
        config: Its groups model, head (a linear one where there is none) and data.
        strategy: What is to be trained.
        table: The images, which decide the number of classes.
    """
    model = config["model"]
    head = head_settings(config["head"], seed=config["seed"])[0] if "head" in config else HeadSpec()
    options = {name: value for name, value in model.items() if name != "name"}
    check_sequences(config, strategy, table)
    frames = sequence_limit(table) if "head" in config else None  # without a head, a network of frames
    network = build_network(model["name"], num_classes=table.num_classes, head=head, frames=frames, **options)
    network.spec = replace(network.spec, exact=config["data"]["exact_pixels"])
    if strategy.adapter is not None:
        adapter = strategy.adapter
        add_lora(network.backbone, rank=adapter.rank, alpha=adapter.alpha, targets=adapter.targets)
    return network


def load_images(config: _Config, table: ImageTable, network: Network, cache: Cache | None = None) -> ImageData:
    """Return the batches of images that the network's weights expect, augmented for training.

    Raises:
        ConfigError: Pixels are to be kept, but there is no cache, or images cannot be made on the device that trains.
    """
    data, device = config["data"], accelerator_device(config["trainer"]["accelerator"])
    augment = Augment(**config["augment"])
    if data["pixel_cache"] and cache is None:
        raise ConfigError("data.pixel_cache=true needs the cache. Set cache.enabled=true, or leave it out.")
    options = {
        "batch_size": data["batch_size"],
        "eval_batch_size": data["eval_batch_size"],
        "workers": image_workers(device, torch.cuda.device_count()) if data["workers"] is None else data["workers"],
        "seed": config["seed"],
        "device_pixels": data["device_pixels"],
    }
    repeated = repeats_of(config, augment, network)
    images = loaders_of(table)(
        table,
        network.spec,
        augment,
        balance=draws_of(config, table),
        repeats=None if repeated is None else ImageData(table, network.spec, repeated, **options),
        pixel_cache=PixelCache(cache, network.spec, augment) if data["pixel_cache"] and cache is not None else None,
        **options,
    )
    if images.device_pixels and device.type != "cuda":
        log.warning("data.device_pixels=true is for GPUs: here images are made on the CPU, one after the other.")
    return images


def load_plain_images(config: _Config, table: ImageTable, network: Network, cache: Cache | None = None) -> ImageData:
    """Return the batches of images as evaluation sees them, each as often as any other."""
    data = {**config["data"], "imbalance": "none", "balance_groups": []}
    return load_images({**config, "augment": {"enabled": False}, "data": data}, table, network, cache)


def repeats_of(config: _Config, augment: Augment, network: Network) -> Augment | None:
    """Return how draws of rare classes that are repeats are varied; None where all draws are varied alike."""
    data = config["data"]
    if data["imbalance"] != "augment_minority" or "loss" not in config:  # a verb that trains nothing
        return None
    return stronger(augment, channels=network.spec.channels, device_pixels=data["device_pixels"])


def build_recipe(config: _Config, table: ImageTable, cache: Cache | None = None) -> Recipe:
    """Return loss, optimizer, schedule and machine settings, checked against the table's task."""
    loss = build_loss(config, table)
    check_monitor(config["monitor"], table.task, table.num_classes)
    if config["mode"] not in ("max", "min"):
        raise ConfigError(
            f"mode={config['mode']} is not known. Use max or min.{nearest(config['mode'], ('max', 'min'))}"
        )
    return Recipe(
        loss=loss,
        optimizer=OptimizerSettings(**config["optimizer"]),
        schedule=Schedule(**config["schedule"]),
        trainer=build_trainer_settings(config["trainer"]),
        mixing=build_mixing(Augment(**config["augment"]), num_classes=table.num_classes, task=table.task),
        feature_mixing=build_feature_mixing(config, table),
        regularizer=build_regularizer(config),
        seed=config["seed"],
        monitor=config["monitor"],
        features=build_features(config, cache),
        head=build_plan(config, loss, table),
        image_weights=build_image_weights(config, loss, table),
    )


def build_plan(config: _Config, loss: torch.nn.Module, table: ImageTable) -> HeadPlan:
    """Return how the head comes by its weights on cached features."""
    spec, solver = head_settings(config["head"], seed=config["seed"])
    if solver is not None:
        check_loss(solver, loss=config["loss"]["_target_"].rsplit(".", 1)[-1], convex=is_convex(loss))
        check_solver_task(solver, table.task)
        check_words(solver, config)
    return HeadPlan(spec, solver, config["data"]["splits"]["group"])


def build_feature_mixing(config: _Config, table: ImageTable) -> FeatureMixing | None:
    """Return what mixes cached features, where the word that is against wrong labels mixes images."""
    if config.get("noise", "none") != "mixup":  # a resumed run may be older than the setting
        return None
    return FeatureMixing(config["augment"]["mixup"] or MIXUP, table.num_classes)


def build_trainer_settings(trainer: _Config) -> TrainerSettings:
    """Return how the machine is used, with the process set up for it."""
    prepare_process(accelerator_device(trainer["accelerator"]))
    if trainer["threads"] is not None:
        torch.set_num_threads(trainer["threads"])
    return TrainerSettings(**{name: value for name, value in trainer.items() if name != "threads"})


def build_callbacks(
    entries: Mapping[str, _Config | None], *extra: Callable[[], Callback]
) -> Callable[[], Sequence[Callback]]:
    """Return a function that makes the configured callbacks anew, for each phase; an entry set to null is left out."""

    def make_all() -> Sequence[Callback]:
        configured = [build(entry) for entry in entries.values() if entry]
        return [*configured, *(make() for make in extra)]

    return make_all


def build_tracker(run: Run, config: _Config) -> Tracker | None:
    """Return the W&B tracker of a run, or None where the logger group has none."""
    options = (config["logger"] or {}).get("wandb")
    if not options:
        return None
    return start_wandb(
        run,
        config,
        project=options["project"],
        entity=options["entity"],
        mode=options["mode"],
        checkpoints=options["checkpoints"],
        name=f"{run.path.parent.name}/{run.path.name}",
        group=config["group"],
        job_type=config["verb"],
        tags=list(config["tags"]),
        monitor=config["monitor"],
        mode_of_monitor=config["mode"],
    )


def build_loggers(run: Run, config: _Config) -> list[Logger]:
    """Return the loggers of a run besides the tracker: each entry of the logger group that has a target."""
    entries = (config["logger"] or {}).values()
    return [build(entry, save_dir=str(run.path)) for entry in entries if entry and "_target_" in entry]
