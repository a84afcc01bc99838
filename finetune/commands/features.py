"""finetune features: compute a backbone's features ahead of the runs that train on them, show or clear what is kept."""

import time
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from finetune.config.compose import to_dict
from finetune.data.cache.store import Cache
from finetune.data.table import SPLITS
from finetune.errors import ConfigError, nearest
from finetune.features.sequence_features import feature_source
from finetune.report.console.cache_console import show_cache
from finetune.runtime.format import format_size
from finetune.runtime.log_filters import quieten
from finetune.training.build import (
    build_features,
    build_trainer_settings,
    known_files,
    load_images,
    load_network,
    load_table,
    open_cache,
)
from finetune.training.phases import Strategy
from finetune.training.trainer import start_pass

ACTIONS = ("compute", "show", "clear")


def features(cfg: DictConfig) -> None:
    """Compute features and keep them, show what is kept, or clear it.

    Raises:
        ConfigError: The action is not known, or there is no cache to act on.
    """
    config = to_dict(cfg) if cfg.action == "compute" else to_dict(without_data(cfg))
    console = Console()
    action = config["action"]
    if action not in ACTIONS:
        raise ConfigError(f"action={action} is not one of {', '.join(ACTIONS)}.{nearest(action, ACTIONS)}")
    cache = open_cache(config["cache"])
    if cache is None:
        raise ConfigError("There is no cache to fill or show: set cache.enabled=true.")
    if action == "compute":
        compute(config, cache, console)
    elif action == "show":
        show_cache(cache, console)
    else:
        clear(cache, config["spaces"], console)


def without_data(cfg: DictConfig) -> DictConfig:
    """Return the configuration without the groups that only computing needs, which may lack values."""
    groups = ("data", "model", "augment")
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in groups])


def compute(config: dict[str, Any], cache: Cache, console: Console) -> None:
    """Compute and keep the features of each split, in all its views."""
    quieten()
    pl.seed_everything(config["seed"], verbose=False)  # as a run does before it makes weights without pretraining
    machine = start_pass(build_trainer_settings(config["trainer"]))
    unknown = [split for split in config["splits"] if split not in SPLITS]
    if unknown:
        raise ConfigError(f"splits: '{unknown[0]}' is not one of {', '.join(SPLITS)}.{nearest(unknown[0], SPLITS)}")
    table = load_table(config["data"], known=known_files(cache))
    network = load_network(config, Strategy("features", ()), table)
    images = load_images(config, table, network, cache)
    source = feature_source(network, images, build_features(config, cache), machine)
    started = time.monotonic()
    for split in config["splits"]:
        rows = table.rows(split)
        views = config["features"]["views" if split == "train" else "test_views"]
        before = source.computed
        source.features(rows, views)
        count = source.count(rows)
        known = count * views - (source.computed - before)
        console.print(f"{split}: {count:,} images, {views} views each; {known:,} were there.", highlight=False)
    console.print(
        f"Computed {source.computed:,} in {time.monotonic() - started:.1f} s; kept in {cache.folder}",
        highlight=False,
        soft_wrap=True,
    )


def clear(cache: Cache, spaces: list[str], console: Console) -> None:
    """Delete spaces, by the first letters of their ids, or all.

    Raises:
        ConfigError: No space begins with these letters.
    """
    infos = cache.infos()
    for space in spaces:
        if not any(info.identity.startswith(space) for info in infos):
            raise ConfigError(f"Nothing in {cache.folder} has an id that begins with '{space}'. See action=show.")
    chosen = [info for info in infos if not spaces or info.identity.startswith(tuple(spaces))]
    gone = [info for info in chosen if cache.delete(info)]
    if not spaces:
        (cache.folder / "files.sqlite").unlink(missing_ok=True)
    busy = f"; {len(chosen) - len(gone)} in use are left" if len(gone) < len(chosen) else ""
    console.print(
        f"Cleared {format_size(sum(info.size for info in gone))} in {len(gone)} spaces{busy}.", highlight=False
    )
