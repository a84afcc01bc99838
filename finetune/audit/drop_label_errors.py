"""Likely label errors are left out of training (`label_noise=drop_suspects`), found without the other splits."""

import csv
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from finetune.audit.label_errors import LabelIssues, find_label_issues
from finetune.config.settings.roots import PartsSettings
from finetune.data.cache.store import Cache
from finetune.data.table import ImageTable, object_column
from finetune.errors import RunError
from finetune.features.extract import FeatureSettings, extract_features
from finetune.models.heads.fit import HeadExamples
from finetune.models.network import Network
from finetune.runs.csv_file import read_cell, write_csv
from finetune.runs.run import Run
from finetune.runtime.device import DevicePass, accelerator_device
from finetune.training.build import load_plain_images

log = logging.getLogger(__name__)

FILE = "suspects.csv"
_COLUMNS = ("id", "path", "label", "likely", "quality")
# how long other processes wait for the first one, which passes all training images through the backbone once
_PATIENCE = 3600.0


def drop_suspects(
    run: Run, settings: PartsSettings, table: ImageTable, network: Network, cache: Cache | None
) -> ImageTable:
    """Return the table without the training images whose labels are likely wrong, where the settings say so.

    The first process finds them and writes their list into the run's folder, where the others, and a resumed run, read
    it.
    """
    if settings.label_noise != "drop_suspects":
        return table
    path = run.path / FILE
    if not path.exists():
        if int(rank_zero_only.rank) == 0:  # type: ignore[attr-defined]
            features = training_features(settings, table, network, cache)
            folds, group = settings.head.folds, settings.data.splits.group
            write_suspects(path, find_suspects(table, features, folds=folds, seed=settings.seed, group=group))
        wait_for_file(path, _PATIENCE)
    return drop_rows(table, read_suspects(path))


def training_features(
    settings: PartsSettings, table: ImageTable, network: Network, cache: Cache | None
) -> npt.NDArray[np.float32]:
    """Return the backbone's features (N, F) of the training images as evaluation sees them; of sequences their mean."""
    images = load_plain_images(settings, settings.trainer, table, network, cache)
    device_pass = DevicePass(accelerator_device(settings.trainer.accelerator), settings.trainer.precision)
    rows = table.rows("train")
    how = FeatureSettings(dtype=settings.features.dtype, cache=cache)
    found: npt.NDArray[np.float32] = extract_features(network, images, rows, how, device_pass).pooled(rows).numpy()
    return found


def find_suspects(
    table: ImageTable, features: npt.NDArray[np.float32], *, folds: int, seed: int, group: str | None
) -> pd.DataFrame:
    """Return the training images whose labels are likely wrong, the likeliest first.

    A class of which none would be left keeps all of its images.

    Args:
        table: The images, split.
        features: Of the training images (N, F), in the order of the table.
        folds: Of the cross-validation by which each image is judged.
        seed: Deals images out to folds.
        group: Column whose values stay on one side of a fold; None for none.

    Returns:
        A row for each: id, path, label, likely (the label that is thought likelier) and quality (0 to 1).
    """
    rows = table.rows("train")
    targets = table.targets()[rows]
    units = None if group is None else np.asarray(pd.factorize(table.frame[group].iloc[rows])[0])
    examples = HeadExamples(
        torch.from_numpy(features), torch.from_numpy(targets), table.task, table.num_classes, groups=units
    )
    issues = find_label_issues(examples, folds=folds, seed=seed)
    chosen = np.flatnonzero(keep_at_least_one(issues.wrong, targets))
    chosen = chosen[np.argsort(issues.quality[chosen], kind="stable")]
    frame = table.frame.iloc[rows[chosen]]
    columns = {name: frame[name].tolist() for name in ("id", "path")}
    columns["label"] = ["|".join(names) for names in (table.names()[row] for row in rows[chosen])]
    columns["likely"] = held_out_labels(table, issues, chosen)
    columns["quality"] = issues.quality[chosen].round(4).tolist()
    return pd.DataFrame({name: object_column(columns[name]) for name in _COLUMNS})


def held_out_labels(table: ImageTable, issues: LabelIssues, chosen: npt.NDArray[np.int64]) -> list[str]:
    """Return the labels that heads give the chosen images, which they have not seen."""
    found = issues.probabilities[chosen]
    if table.task == "multiclass":
        return [table.labels[number] for number in found.argmax(axis=1)] if len(found) else []
    return ["|".join(np.array(table.labels)[row >= 0.5]) for row in found]


def keep_at_least_one(wrong: npt.NDArray[np.bool_], targets: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which images (N,) to leave out, so that each label keeps one that has it."""
    result = wrong.copy()
    labels = np.eye(int(targets.max(initial=0)) + 1)[targets] if targets.ndim == 1 else targets
    for column in labels.T > 0:
        if column.any() and result[column].all():
            result[column] = False
            log.warning("All %d training images of a class are likely mislabelled; they are kept.", column.sum())
    return result


def write_suspects(path: Path, suspects: pd.DataFrame) -> None:
    """Write the list, and say what is left out."""
    rows = suspects[list(_COLUMNS)].to_dict("records")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, [{str(name): cell for name, cell in row.items()} for row in rows], _COLUMNS)
    first = f" (first: {suspects['id'].iloc[0]})" if len(suspects) else ""
    log.info("label_noise=drop_suspects: %d training images are left out%s; see %s", len(suspects), first, path)


def read_suspects(path: Path) -> list[str]:
    """Return the ids of the images that are left out."""
    with path.open(newline="", encoding="utf-8") as file:
        return [read_cell(row["id"]) for row in csv.DictReader(file)]


def wait_for_file(path: Path, seconds: float) -> None:
    """Wait until another process has written a file.

    Raises:
        RunError: It has not, after so many seconds.
    """
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise RunError(f"{path} was not written by the first process. All of them need one folder: hydra.run.dir=…")
        time.sleep(0.2)


def drop_rows(table: ImageTable, ids: list[str]) -> ImageTable:
    """Return a table without some of its training images."""
    gone = table.frame["id"].isin(ids) & (table.frame["split"] == "train")
    return replace(table, frame=table.frame[~gone].reset_index(drop=True))
