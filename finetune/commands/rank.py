"""The command rank: which of timm's backbones suits these images best, from one pass of them through each.

Val and test images are not looked at.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from finetune.config.resolve import resolve
from finetune.config.settings.roots import RankRootSettings
from finetune.data.sequences.frame_store import require_single_images
from finetune.data.table import ImageTable
from finetune.errors import ConfigError
from finetune.report.console.ranking_console import WIDTH, say, show_ranking
from finetune.report.pages.ranking_chart import draw_ranking
from finetune.runtime.device import DevicePass
from finetune.runtime.log_filters import quieten
from finetune.search.ranking.candidates import check_ranking_options
from finetune.search.ranking.rank_backbones import rank_backbones
from finetune.search.ranking.ranking_results import (
    RankedBackbone,
    Skipped,
    cheaper,
    find_backbones,
    nothing_scored,
    ranked,
    ranking_document,
    training_command,
    write_ranking,
)
from finetune.training.build import known_files, load_table, open_cache, prepare_machine
from finetune.training.trainer import start_pass


def rank(cfg: DictConfig) -> None:
    """Score backbones on the training images, print and write the comparison, and say how to train the best.

    Raises:
        ConfigError: A setting makes no sense, or no backbone's weights are to be had.
        RunError: No backbone could be scored.
    """
    settings = resolve(cfg, RankRootSettings)
    quieten()
    check_ranking_options(settings.rank)
    candidates, missing = find_backbones(settings.rank)
    device_pass = start_pass(prepare_machine(settings.trainer))
    if device_pass.world_size > 1:
        raise ConfigError("finetune rank measures latencies, so it uses one device. Set trainer.devices=1.")
    console = Console()
    console = console if console.is_terminal else Console(width=max(WIDTH, console.width))
    entries: list[RankedBackbone] = []
    skipped: list[Skipped] = []
    if candidates:
        cache = open_cache(settings.cache)
        table = load_table(settings.data, known=known_files(cache))
        require_single_images(table, "finetune rank", "Rank on the frames as images: data=folder, or data=csv.")
        with console.status("") as status:
            entries, skipped = rank_backbones(candidates, settings, table, device_pass, cache, status.update)
    if not entries:
        raise nothing_scored([*missing, *skipped])
    _finish(entries, [*missing, *skipped], settings, table, device_pass, console)


def _finish(
    entries: Sequence[RankedBackbone],
    skipped: Sequence[Skipped],
    settings: RankRootSettings,
    table: ImageTable,
    device_pass: DevicePass,
    console: Console,
) -> None:
    """Write and print the comparison, and how to train the best."""
    count, options = len(table.rows("train")), settings.rank
    typed = list(HydraConfig.get().overrides.task)
    facts: dict[str, Any] = {
        "title": f"{len(entries)} of {len(entries) + len(skipped)} backbones, {count:,} training images of "
        f"{table.num_classes} classes",
        "images": count, "classes": table.num_classes, "fingerprint": table.fingerprint(),
        "folds": entries[0].score.folds, "batch_size": options.batch_size, "device": device_pass.device.type,
        "precision": device_pass.precision, "threads": torch.get_num_threads(),
        "command": training_command(ranked(entries)[0].candidate, typed),
    }  # fmt: skip
    output = Path(options.output).expanduser()
    write_ranking(output, ranking_document(entries, skipped, facts), draw_ranking(entries, facts["title"]))
    show_ranking(entries, skipped, facts, console)
    other = cheaper(entries)
    if other is not None:
        say(console, f"As good within one standard error, and faster: {training_command(other.candidate, typed)}")
    say(console, f"Train the best: {facts['command']}")
    say(console, f"Written to {output / 'rank.csv'}, rank.json and rank.svg")
