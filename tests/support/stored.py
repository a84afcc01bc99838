"""Folders of finished runs, written as training writes them, without a training."""

from pathlib import Path
from typing import Any

import numpy as np
from configured import composed
from PIL import Image

from finetune.data.image_stores import FileStore
from finetune.data.table import ImageTable, build_frame
from finetune.evaluation.bootstrap import metrics_document
from finetune.evaluation.predictions import Predictions
from finetune.runs.history import RunHistory
from finetune.runs.run import Run, write_json

PHASES = [{"name": "probe", "train": "head"}, {"name": "finetune", "train": "all"}]


def stored_run(
    folder: Path, splits: dict[str, Predictions], *, resamples: int = 50, train: list[str] | None = None
) -> Run:
    """Write the folder of a finished run that has predicted these splits.

    Args:
        folder: Where it goes.
        splits: Predictions by split.
        resamples: Behind the intervals.
        train: Labels of the training images, which have no file; None for one of each class.
    """
    whole = dict(composed("train").document)
    config = {
        **whole, "seed": 0, "monitor": "val/accuracy", "mode": "max", "explain": {"images": 4, "method": "auto"},
        "model": {**whole["model"], "name": "test_resnet"},
        "strategy": {**whole["strategy"], "name": "lp_ft", "phases": PHASES},
        "data": {**whole["data"], "source": {"_target_": "finetune.data.sources.folder", "root": "photos"}},
    }  # fmt: skip
    command = ["/somewhere/bin/finetune", "data.root=my photos", f"hydra.run.dir={folder}"]
    run = Run.create(folder, config=config, command=command, seed=0)
    for split, predictions in splits.items():
        predictions.save(run.predictions_file(split))
    write_json(run.metrics_file, metrics_document(splits, resamples=resamples))
    history = RunHistory(run.history_file)
    for epoch, accuracy in enumerate((0.5, 0.7, 0.6, 0.8)):
        losses = {"train/loss": 2.0 - epoch / 4, "val/loss": 2.2 - epoch / 4}
        phase = PHASES[epoch // 2]["name"]
        history.append({"step": 10 * epoch, "epoch": epoch, "phase": phase, **losses, "val/accuracy": accuracy})
    save_table(run, splits, train)
    run.update(status="finished", baselines={"val": {"nearest_neighbours": 0.61}}, data={"fingerprint": "f00d"})
    return run


def save_table(run: Run, splits: dict[str, Predictions], train: list[str] | None) -> None:
    """Write which images are in which split."""
    labels = next(iter(splits.values())).labels
    rows: dict[str, list[Any]] = {"id": [], "path": [], "label": [], "split": []}
    for number, label in enumerate(train or labels):
        add(rows, f"train{number}", "", label, "train")
    for split, predictions in splits.items():
        for name, path, label in zip(predictions.ids, predictions.paths, predictions.label_names, strict=True):
            add(rows, name, path, label, split)
    multilabel = next(iter(splits.values())).multilabel
    rows["label"] = [tuple(word.split("|")) if word else () for word in rows["label"]] if multilabel else rows["label"]
    frame = build_frame({**rows, "digest": [None] * len(rows["id"])})
    ImageTable(frame, labels, "multilabel" if multilabel else "multiclass", FileStore()).save(run.table_file)


def add(rows: dict[str, list[Any]], *values: Any) -> None:
    """Add a row to columns."""
    for column, value in zip(rows.values(), values, strict=True):
        column.append(value)


def photos_of(predictions: Predictions, folder: Path, side: int = 200) -> Predictions:
    """Return predictions whose images exist: noise, which is what is hardest to make small."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    shared = [folder / f"{number}.png" for number in range(40)]
    for path in shared:
        Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    paths = np.array([str(shared[number % len(shared)]) for number in range(predictions.num)], object)
    object.__setattr__(predictions, "paths", paths)
    return predictions
