"""From a plain configuration to typed parts: table, network, recipe, callbacks, loggers.

It decides which key goes to which argument and resolves what depends on the machine or the data; it never sees a
DictConfig, and what the parts do is theirs.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from finetune.config import build
from finetune.data.datamodule import ImageData
from finetune.data.decoding import verify
from finetune.data.splits import make_splits
from finetune.data.table import ImageTable
from finetune.data.transforms import Augment
from finetune.errors import ConfigError, nearest
from finetune.heads.settings import head_settings
from finetune.models.adapters import add_lora
from finetune.models.network import Network, build_network
from finetune.runs import Run
from finetune.strategies.phases import Strategy
from finetune.tracking import Tracker, start_wandb
from finetune.training.fit import OptimizerSettings, Recipe, TrainerSettings
from finetune.training.losses import check_task, class_weights
from finetune.training.metrics import check_monitor
from finetune.training.mixing import build_mixing
from finetune.training.schedules import Schedule

log = logging.getLogger(__name__)

Config = dict[str, Any]
IMBALANCE = ("none", "class_weights", "balanced_sampler")


def load_table(data: Config, stored: Path) -> ImageTable:
    """Return the table of images, checked and split.

    Args:
        data: The config's data group.
        stored: The run's stored table; where it exists (a resumed run), its splits are used again.
    """
    table: ImageTable = build(data["source"])
    if stored.exists():
        return table.with_splits_of(stored)
    table = verify(table, data["unreadable"])
    splits = data["splits"]
    return make_splits(table, val=splits["val"], test=splits["test"], seed=splits["seed"], group=splits["group"])


def load_network(config: Config, strategy: Strategy, table: ImageTable) -> Network:
    """Return the network with its weights, a new head, and the strategy's adapters where it has any."""
    model = config["model"]
    head, _ = head_settings(config["head"], seed=config["seed"])
    options = {name: value for name, value in model.items() if name != "name"}
    network = build_network(model["name"], num_classes=table.num_classes, head=head, **options)
    if strategy.adapter is not None:
        adapter = strategy.adapter
        add_lora(network.backbone, rank=adapter.rank, alpha=adapter.alpha, targets=adapter.targets)
    return network


def load_images(config: Config, table: ImageTable, network: Network) -> ImageData:
    """Return the batches of images that the network's weights expect, augmented for training."""
    data = config["data"]
    return ImageData(
        table,
        network.spec,
        Augment(**config["augment"]),
        batch_size=data["batch_size"],
        eval_batch_size=data["eval_batch_size"],
        workers=data["workers"] if data["workers"] is not None else free_workers(config["trainer"]),
        seed=config["seed"],
        balanced=data["imbalance"] == "balanced_sampler",
    )


def free_workers(trainer: Config) -> int:
    """Return how many processes may decode images: the cores that training leaves idle.

    On the CPU the network itself is the bottleneck and uses all cores, so batches are made in the same process.
    """
    if trainer["accelerator"] == "cpu" or not torch.cuda.is_available():
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // max(1, torch.cuda.device_count()) - 1))


def build_recipe(config: Config, table: ImageTable) -> Recipe:
    """Return loss, optimizer, schedule and machine settings, checked against the table's task."""
    loss = build_loss(config, table)
    check_monitor(config["monitor"], table.task, table.num_classes)
    if config["mode"] not in ("max", "min"):
        raise ConfigError(
            f"mode={config['mode']} is not known. Use max or min.{nearest(config['mode'], ('max', 'min'))}"
        )
    settings = {name: value for name, value in config["trainer"].items() if name != "threads"}
    if config["trainer"]["threads"] is not None:
        torch.set_num_threads(config["trainer"]["threads"])
    return Recipe(
        loss=loss,
        optimizer=OptimizerSettings(**config["optimizer"]),
        schedule=Schedule(**config["schedule"]),
        trainer=TrainerSettings(**settings),
        mixing=build_mixing(Augment(**config["augment"]), num_classes=table.num_classes, task=table.task),
        seed=config["seed"],
        monitor=config["monitor"],
    )


def build_loss(config: Config, table: ImageTable) -> torch.nn.Module:
    """Return the loss, with class weights where the imbalance policy asks for them."""
    imbalance = config["data"]["imbalance"]
    if imbalance not in IMBALANCE:
        raise ConfigError(
            f"data.imbalance={imbalance} is not one of {', '.join(IMBALANCE)}.{nearest(imbalance, IMBALANCE)}"
        )
    options: Config = {}
    if imbalance == "class_weights":
        targets = torch.from_numpy(table.targets()[table.rows("train")])
        options["class_weights"] = class_weights(targets, table.task, table.num_classes)
    loss: torch.nn.Module = build(config["loss"], **options)
    check_task(loss, table.task)
    return loss


def build_callbacks(
    entries: Mapping[str, Config | None], *extra: Callable[[], Callback]
) -> Callable[[], Sequence[Callback]]:
    """Return a function that makes the configured callbacks anew, for each phase; an entry set to null is left out."""

    def make_all() -> Sequence[Callback]:
        configured = [build(entry) for entry in entries.values() if entry]
        return [*configured, *(make() for make in extra)]

    return make_all


def build_tracker(run: Run, config: Config) -> Tracker | None:
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


def build_loggers(run: Run, config: Config) -> list[Logger]:
    """Return the loggers of a run besides the tracker: each entry of the logger group that has a target."""
    entries = (config["logger"] or {}).values()
    return [build(entry, save_dir=str(run.path)) for entry in entries if entry and "_target_" in entry]
