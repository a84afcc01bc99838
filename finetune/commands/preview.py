"""finetune preview: what training and evaluation show a network, before anything is trained."""

import shlex
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from finetune.audit.preview.network_view import choose_rows, mixtures_of, network_views
from finetune.config.compose import to_dict
from finetune.data.sequences.frame_store import require_single_images
from finetune.data.transforms import Augment
from finetune.report.console.preview_console import changes_table
from finetune.report.html.render import render
from finetune.report.pages.preview_page import evaluation_words, preview_sections
from finetune.runs.run import write_atomic
from finetune.runtime.log_filters import quieten
from finetune.training.build import known_files, load_images, load_network, load_table, open_cache
from finetune.training.phases import Strategy

_Config = dict[str, Any]
REPEATS = (
    "Draws of rare classes that are repeats are varied by RandAugment and erasing too (imbalance=augment_minority)."
)
# images are made in this process, and rare classes are varied as in training, which has a loss
AS_TRAINED: _Config = {"trainer": {"accelerator": "cpu"}, "loss": {}}


def preview(cfg: DictConfig) -> None:
    """Write a page that shows some training images as training and evaluation see them.

    Raises:
        ConfigError: A setting makes no sense, or cannot be applied to what the network expects.
        DataError: An image cannot be read, or there are no splits to be made.
    """
    config = to_dict(cfg)
    quieten()
    console = Console()
    options = config["preview"]
    cache = open_cache(config["cache"])
    table = load_table(config["data"], known=known_files(cache))
    require_single_images(table, "finetune preview", "Look at the frames as images: data=folder, or data=csv.")
    network = load_network({**config, "model": {**config["model"], "weights": "none"}}, Strategy("preview", ()), table)
    images = load_images({**config, **AS_TRAINED}, table, network, cache)
    augment = Augment(**config["augment"])
    rows = choose_rows(table, options["images"], config["seed"])
    shown = network_views(images, rows, options["views"])
    notes = [REPEATS] if images.repeats is not None else []
    parts = preview_sections(table, network.spec, augment, shown, mixtures_of(images, rows, augment), _command(), notes)
    page = Path(options["output"]).expanduser()
    write_atomic(page, render("What the network sees", parts, subtitle=f"{network.name}, {len(table):,} images"))
    console.print(f"Evaluation: {evaluation_words(network.spec)}.", highlight=False)
    console.print(changes_table(augment, network.spec.crop_mode))
    console.print(f"Written to {page}", highlight=False, soft_wrap=True)


def _command() -> str:
    """Return what trains with the settings of this preview."""
    typed = [word for word in HydraConfig.get().overrides.task if not word.startswith("preview.")]
    return shlex.join(["finetune", *typed])
