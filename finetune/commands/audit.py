"""finetune audit: what is wrong with a set of images, before anything is trained on it."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from finetune.audit.audit_store import save_audit
from finetune.audit.duplicates import DuplicateThresholds
from finetune.audit.findings import Findings, write_findings
from finetune.audit.inspection import AuditChecks, audit_images
from finetune.config.compose import instantiate_target
from finetune.config.resolve import resolve
from finetune.config.settings.roots import AuditRootSettings
from finetune.data.cache.store import Cache
from finetune.data.sequences.frame_store import require_single_images
from finetune.data.table import ImageTable
from finetune.data.verification import check_images
from finetune.errors import ConfigError
from finetune.features.extract import FeatureSettings, extract_features
from finetune.report.console.audit_console import findings_table, next_commands
from finetune.report.html.render import render
from finetune.report.pages.audit_page import audit_sections
from finetune.runs.run import write_atomic
from finetune.runtime.log_filters import quieten
from finetune.training.build import (
    check_and_split,
    known_files,
    load_backbone,
    load_plain_images,
    open_cache,
    prepare_machine,
)
from finetune.training.trainer import start_pass


def audit(cfg: DictConfig) -> None:
    """Look for leaks, unreadable files, duplicates, outliers and likely wrong labels; write a table and a page.

    Raises:
        ConfigError: A setting makes no sense.
        DataError: No image can be read, or there are no splits to be made.
    """
    settings = resolve(cfg, AuditRootSettings)
    quieten()
    console = Console()
    cache = open_cache(settings.cache)
    table, unreadable, own_splits = _load(settings, cache)
    features = features_of(settings, table, cache)
    options = settings.audit
    thresholds = DuplicateThresholds(options.hash_distance, options.similarity)
    checks = AuditChecks(thresholds, options.labels, options.folds, settings.data.splits.group, settings.seed)
    with console.status("Looking for duplicates, outliers and wrong labels"):
        findings = audit_images(table, features, checks, own_splits=own_splits, unreadable=unreadable)
    folder = Path(settings.audit.output).expanduser()
    _finish(findings, settings, folder, cache, console)


def _load(settings: AuditRootSettings, cache: Cache | None) -> tuple[ImageTable, list[tuple[str, str]], bool]:
    """Return the readable images as a run would split them, the others with the reasons, and whether splits were given.

    Raises:
        DataError: No image can be read.
    """
    given: ImageTable = instantiate_target(settings.data.source)
    require_single_images(given, "finetune audit", "Audit the frames as images: data=folder, or data=csv.")
    table = check_and_split(given, replace(settings.data, unreadable="skip"), known_files(cache))
    own_splits = not given.frame["split"].isna().any()
    frame = given.frame
    gone = replace(given, frame=frame[frame["id"].isin(table.skipped)].reset_index(drop=True))
    reasons = [problem or "it could not be read a moment ago" for _, problem, _ in check_images(gone, None)]
    return table, list(zip(gone.frame["path"].tolist(), reasons, strict=True)), own_splits


def features_of(settings: AuditRootSettings, table: ImageTable, cache: Cache | None) -> Any:
    """Return the backbone's features (N, F) of all images, from the cache where they are there."""
    pl.seed_everything(settings.seed, verbose=False)  # as a run does before it makes weights without pretraining
    device_pass = start_pass(prepare_machine(settings.trainer))
    network = load_backbone(settings.model, settings.data, table)
    images = load_plain_images(settings, settings.trainer, table, network, cache)
    if device_pass.world_size > 1:
        raise ConfigError("finetune audit uses one device. Set trainer.devices=1.")
    rows = np.arange(len(table), dtype=np.int64)
    return extract_features(network, images, rows, FeatureSettings(cache=cache), device_pass).take(rows).numpy()


def _finish(
    findings: Findings, settings: AuditRootSettings, folder: Path, cache: Cache | None, console: Console
) -> None:
    """Write, keep and print what was found."""
    started = time.monotonic()
    document = write_findings(findings, settings.audit, folder)
    page, commands = folder / "audit.html", next_commands(findings, folder, HydraConfig.get().overrides.task)
    size = f"{len(findings.table):,} images of {findings.table.num_classes:,} classes"
    write_atomic(page, render("Audit of the images", audit_sections(findings, commands), subtitle=size))
    if cache is not None:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        kept = {"created": created, "counts": document["counts"], "images": document["images"]}
        save_audit(cache.folder, document["fingerprint"], {**kept, "page": str(page.absolute())})
    console.print(findings_table(document["counts"]))
    for line in commands.splitlines():
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    took = findings.seconds + time.monotonic() - started
    console.print(f"Written to {page}, audit.csv and audit.json in {took:.1f} s", highlight=False, soft_wrap=True)
