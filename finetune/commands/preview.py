"""finetune preview: what training and evaluation show a network, before anything is trained."""

import shlex
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from finetune.audit.preview.network_view import choose_rows, mixtures_of, network_views
from finetune.config.resolve import resolve
from finetune.config.settings.roots import PreviewRootSettings
from finetune.data.sequences.frame_store import require_single_images
from finetune.report.console.preview_console import changes_table
from finetune.report.html.render import render
from finetune.report.pages.preview_page import evaluation_words, preview_sections
from finetune.runs.run import write_atomic
from finetune.runtime.log_filters import quieten
from finetune.training.build import images_of, known_files, load_backbone, load_table, open_cache, repeats_of
from finetune.training.imbalance import build_resampling

REPEATS = (
    "Draws of rare classes that are repeats are varied by RandAugment and erasing too (imbalance=augment_minority)."
)


def preview(cfg: DictConfig) -> None:
    """Write a page that shows some training images as training and evaluation see them.

    Raises:
        ConfigError: A setting makes no sense, or cannot be applied to what the network expects.
        DataError: An image cannot be read, or there are no splits to be made.
    """
    settings = resolve(cfg, PreviewRootSettings)
    quieten()
    console = Console()
    options, augment = settings.preview, settings.augment
    cache = open_cache(settings.cache)
    table = load_table(settings.data, known=known_files(cache))
    require_single_images(table, "finetune preview", "Look at the frames as images: data=folder, or data=csv.")
    network = load_backbone(replace(settings.model, weights="none"), settings.data, table)
    images = images_of(  # made in this process, and varied as in training
        settings.data, augment, "cpu", settings.seed, table, network, cache,
        draws=build_resampling(settings.imbalance, settings.data, table),
        repeats=repeats_of(settings.imbalance, settings.data, augment, network),
    )  # fmt: skip
    rows = choose_rows(table, options.images, settings.seed)
    shown = network_views(images, rows, options.views)
    notes = [REPEATS] if images.repeats is not None else []
    typed = [word for word in HydraConfig.get().overrides.task if not word.startswith("preview.")]
    command, mixed = shlex.join(["finetune", *typed]), mixtures_of(images, rows, augment)
    parts = preview_sections(table, network.spec, augment, shown, mixed, command, notes)
    page = Path(options.output).expanduser()
    write_atomic(page, render("What the network sees", parts, subtitle=f"{network.name}, {len(table):,} images"))
    console.print(f"Evaluation: {evaluation_words(network.spec)}.", highlight=False)
    console.print(changes_table(augment, network.spec.crop_mode))
    console.print(f"Written to {page}", highlight=False, soft_wrap=True)
