"""How a stored run is run again: on which device, in which precision, in how many views, by how many processes.

It decides what a run's own configuration says of these where nothing was typed; what is run is left to the verbs.
"""

import os

import torch

from finetune.data.transforms import Augment
from finetune.errors import ConfigError
from finetune.evaluation.inference import choose_device
from finetune.runs.run import Run
from finetune.runtime.allocator import keep_freed_memory
from finetune.runtime.precision import choose_precision


def use_device(name: str) -> torch.device:
    """Return the device of that name, with the process set up for it."""
    device = choose_device(name)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def own_precision(run: Run, given: str | None, device: torch.device) -> str:
    """Return the given precision, else the one the run was trained in."""
    return choose_precision(given if given is not None else run.config["trainer"]["precision"], device)


def own_views(run: Run, given: int | None) -> tuple[int, Augment]:
    """Return in how many views an image is scored, by default as the run was, and how the run varies images.

    Raises:
        ConfigError: Several views are asked for, and the run varies no image.
    """
    views = given if given is not None else int(run.config.get("features", {}).get("test_views", 1))
    augment = Augment(**run.config["augment"])
    if views > 1 and not augment.enabled:
        raise ConfigError(f"views={views} would take the same image as often: the run augments nothing. Use views=1.")
    return views, augment


def available_workers(device: torch.device) -> int:
    """Return how many processes may read images: none on the CPU, where the network takes all cores."""
    return 0 if device.type == "cpu" else max(1, min(8, (os.cpu_count() or 1) - 1))
