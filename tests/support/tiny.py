"""Small real parts for tests: a table of digits, its batches, and strategies of two epochs."""

from dataclasses import replace
from typing import Any

import numpy as np
from configured import settings_for

from finetune.config.settings.training_groups import Augment
from finetune.data.datamodule import ImageData
from finetune.data.resampling import Balance
from finetune.data.sources import digits
from finetune.data.table import ImageTable
from finetune.models.network import Network

PHASES: dict[str, list[dict[str, Any]]] = {
    "full": [{"name": "full", "train": "all", "epochs": 2, "batchnorm": "train", "layer_decay": 0.8}],
    "frozen": [{"name": "probe", "train": "head", "epochs": 2, "features": "cached"}],
    "lp_ft": [
        {"name": "probe", "train": "head", "epochs": 2, "features": "cached"},
        {"name": "finetune", "train": "all", "epochs": 2, "layer_decay": 0.8},
    ],
    "gradual": [
        {"name": "head", "train": "head", "epochs": 2},
        {"name": "half", "train": "last", "fraction": 0.5, "epochs": 2, "batchnorm": "train"},
        {"name": "all", "train": "all", "epochs": 1},
    ],
    "partial": [{"name": "partial", "train": "last", "fraction": 0.5, "epochs": 2}],
    "lora": [{"name": "lora", "train": "adapters", "epochs": 2}],
    "bitfit": [{"name": "bitfit", "train": "bias_norm", "epochs": 2}],
}


def strategy_config(name: str) -> dict[str, Any]:
    """Return a strategy of that name as its configuration, short enough for a test."""
    adapter = {"rank": 2, "alpha": 4.0, "targets": []} if name == "lora" else None
    return {"name": name, "adapter": adapter, "phases": PHASES[name]}


def tiny_table(*, train: int, val: int, test: int) -> ImageTable:
    """Return some of the bundled digits, split as asked."""
    table = digits()
    frame = table.frame.iloc[: train + val + test].reset_index(drop=True)
    frame["split"] = np.repeat(["train", "val", "test"], [train, val, test])
    return replace(table, frame=frame)


def tiny_images(
    table: ImageTable, network: Network, *, batch_size: int = 8, workers: int = 0, balance: Balance | None = None
) -> ImageData:
    """Return batches with random crops, so that a repeated run must repeat its augmentation."""
    augment = settings_for(Augment, crop_scale=(0.5, 1.0), horizontal_flip=0.5, color_jitter=0.2)
    options = {"batch_size": batch_size, "workers": workers}
    return ImageData(table, network.spec, augment, seed=0, balance=balance, **options)
