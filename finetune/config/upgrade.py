"""From the stored configuration of a run of an earlier version to one of today's form, once, when it is read."""

import copy
from collections.abc import Mapping
from typing import Any

from finetune.config.aliases import rename_config

# what a key that is younger than a run had to be for the run to be as it was
_BEFORE: dict[str, Any] = {
    "verb": "train",
    "label_noise": "none",
    "balance": {"beta": 0.999, "tau": 1.0, "views": 4},
    "regularize": {"l2_sp": 0.0, "l1": 0.0},
    "wise_ft": [],
    "calibration": "none",
    "report": False,
    "recipe": {"name": "none", "budget": None},
    "explain": {"images": 0, "method": "auto"},
    "groups": {"columns": None, "min_images": 30, "intersections": []},
    "ood": {"kind": "none", "tpr": 0.95, "images": 2000, "neighbours": None, "variance": None},
    "tta_views": 1,
    "imbalance": "none",
    "features": {"views": 1, "dtype": "float32"},
    "cache": {"enabled": False, "dir": None, "max_size": "20GB"},
    "callbacks": {},
    "logger": {},
    "tags": [],
    "group": None,
    "name": None,
    "resume": None,
    "head": {
        "hidden": 512, "dropout": 0.0, "standardize": False, "solver": None, "l2": None, "l1": None, "folds": 5,
        "layers": 1, "bidirectional": True, "kernel": 3, "rounds": 50, "tree_depth": 2,
    },
    "data": {
        "balance_groups": [], "unreadable": "error",
        "bits": None, "value_range": None, "max_megapixels": 120.0, "exact_pixels": True, "pixel_cache": False,
        "device_pixels": False, "crop_mode": None, "image_size": None, "horizontal_flip": 0.5, "smallest_crop": 0.35,
        "splits": {"group": None, "fold": None},
    },
    "model": {"use_ema": False, "image_size": None, "crop_mode": None, "grad_checkpointing": False, "depth": None},
    "augment": {
        "color_jitter": 0.0, "vertical_flip": 0.0, "quarter_turns": False, "rotate": 0.0, "blur": 0.0,
        "trivial_augment": False,
    },
    "schedule": {"cycles": 1},
    "trainer": {"threads": None, "limit_batches": None},
}  # fmt: skip
_WANDB = {"checkpoints": "none", "images": 0, "table": 0}


def upgrade(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain configuration of a run as today's version would have stored it."""
    result = {**copy.deepcopy(dict(plain)), "trust": False}  # that of this command line counts, not a stored one
    rename_config(result)
    model, logger = result.get("model"), result.get("logger")
    if "head" not in result and isinstance(model, dict) and "head" in model:  # where it was once
        result["head"] = model.pop("head")
    fill(result, {name: value for name, value in _BEFORE.items() if result.get("verb") != "pretrain" or name in result})
    if isinstance(logger, dict) and isinstance(logger.get("wandb"), dict):
        fill(logger["wandb"], _WANDB)
    return result


def fill(content: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Give a dictionary the entries that it lacks, at any depth."""
    for name, value in before.items():
        found = content.setdefault(name, copy.deepcopy(value))
        if isinstance(value, Mapping) and isinstance(found, dict):
            fill(found, value)
