"""finetune features: compute a backbone's features ahead of the runs that train on them, show or clear what is kept."""

import time

import pytorch_lightning as pl
from omegaconf import DictConfig
from rich.console import Console

from finetune.config.compose import to_dict
from finetune.config.resolve import resolve
from finetune.config.settings.checked import typed
from finetune.config.settings.data_groups import CacheSettings
from finetune.config.settings.roots import FeaturesRootSettings
from finetune.data.cache.store import Cache
from finetune.data.table import SPLITS
from finetune.errors import ConfigError, nearest
from finetune.features.extract import FeatureSource
from finetune.report.console.cache_console import show_cache
from finetune.runtime.format import format_size
from finetune.runtime.log_filters import quieten
from finetune.training.build import (
    build_features,
    images_of,
    known_files,
    load_backbone,
    load_table,
    open_cache,
    prepare_machine,
)
from finetune.training.imbalance import build_resampling
from finetune.training.sequence_checks import check_views
from finetune.training.trainer import start_pass

ACTIONS = ("compute", "show", "clear")


def features(cfg: DictConfig) -> None:
    """Compute features and keep them, show what is kept, or clear it.

    Raises:
        ConfigError: The action is not known, or there is no cache to act on.
    """
    action, console = str(cfg.action), Console()
    if action not in ACTIONS:
        raise ConfigError(f"action={action} is not one of {', '.join(ACTIONS)}.{nearest(action, ACTIONS)}")
    cache = open_cache(typed(CacheSettings, to_dict(cfg.cache)))
    if cache is None:
        raise ConfigError("There is no cache to fill or show: set cache.enabled=true.")
    if action == "compute":
        compute(resolve(cfg, FeaturesRootSettings), cache, console)
    elif action == "show":
        show_cache(cache, console)
    else:
        clear(cache, list(cfg.spaces), console)


def compute(settings: FeaturesRootSettings, cache: Cache, console: Console) -> None:
    """Compute and keep the features of each split, in all its views."""
    quieten()
    pl.seed_everything(settings.seed, verbose=False)  # as a run does before it makes weights without pretraining
    device_pass = start_pass(prepare_machine(settings.trainer))
    unknown = [split for split in settings.splits if split not in SPLITS]
    if unknown:
        raise ConfigError(f"splits: '{unknown[0]}' is not one of {', '.join(SPLITS)}.{nearest(unknown[0], SPLITS)}")
    table = load_table(settings.data, known=known_files(cache))
    check_views(settings.features, settings.tta_views, table)
    network = load_backbone(settings.model, settings.data, table)
    images = images_of(
        settings.data, settings.augment, settings.trainer.accelerator, settings.seed, table, network, cache,
        draws=build_resampling(settings.imbalance, settings.data, table),
    )  # fmt: skip
    how = build_features(settings.features, settings.tta_views, cache, augmented=settings.augment.enabled)
    source = FeatureSource(network, images, how, device_pass)
    started = time.monotonic()
    for split in settings.splits:
        rows = table.rows(split)
        views = settings.features.views if split == "train" else settings.tta_views
        before = source.computed
        source.features(rows, views)
        count = source.count(rows)
        known = count * views - (source.computed - before)
        console.print(f"{split}: {count:,} images, {views} views each; {known:,} were there.", highlight=False)
    took = f"Computed {source.computed:,} in {time.monotonic() - started:.1f} s"
    console.print(f"{took}; kept in {cache.folder}", highlight=False, soft_wrap=True)


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
    size = format_size(sum(info.size for info in gone))
    console.print(f"Cleared {size} in {len(gone)} spaces{busy}.", highlight=False)
