"""Attribution maps of a run's own examples, made while its network is at hand."""

from pathlib import Path

import numpy as np
import torch

from finetune.config.settings.run_groups import ExplainSettings
from finetune.data.table import ImageStore, ranged_store
from finetune.data.transforms import eval_transform
from finetune.evaluation.explain.attribution_store import save_maps
from finetune.evaluation.explain.attributions import attribute, check_attribution_method, resolve_method
from finetune.evaluation.explain.examples import choose_examples
from finetune.evaluation.predictions import Predictions
from finetune.models.network import Network


def explain_run(
    folder: Path, network: Network, store: ImageStore, predictions: Predictions, settings: ExplainSettings, seed: int
) -> int:
    """Keep maps of the best, worst and some random images, as many as a run asks for, and return how many.

    Of sequences there are none: maps are of single images.

    Args:
        folder: Where they are kept: the run's, or that of an evaluation.
        network: Whose predictions they are.
        store: Reads the images.
        predictions: Of the split that the page is about.
        settings: How many images of each kind, and by which method.
        seed: Draws the random ones.

    Raises:
        ConfigError: The method is not one for this network.
    """
    if not settings.images or network.frames is not None:
        return 0
    chosen = resolve_method(network, settings.method)
    examples = choose_examples(predictions, settings.images, seed).values()
    rows = np.unique(np.concatenate([*examples, np.zeros(0, np.int64)])).astype(np.int64)
    if not len(rows):
        return 0
    device = next(network.parameters()).device
    transform = eval_transform(network.spec)
    store = ranged_store(store, network.spec.value_range)
    pictures = [store.open(str(predictions.paths[row]), network.spec.channels) for row in rows]
    images = torch.stack([transform.apply(picture) for picture in pictures]).to(device)
    targets = torch.from_numpy(predictions.probabilities[rows].argmax(axis=1)).to(device)  # the most probable class
    maps = attribute(network, images, targets, chosen)
    save_maps(folder, {str(predictions.ids[row]): found for row, found in zip(rows, maps, strict=True)}, chosen)
    return len(rows)


def check_explained(network: Network, settings: ExplainSettings) -> None:
    """Refuse, before hours of training, what could not be explained after them.

    Args:
        network: What is to be explained.
        settings: How many images of each kind, and by which method.

    Raises:
        ConfigError: The method is not known, or not one for this network.
    """
    check_attribution_method(settings.method)
    if settings.images and settings.method != "auto":
        resolve_method(network, settings.method)
