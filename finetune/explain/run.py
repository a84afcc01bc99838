"""The maps of a run's own examples, made while its network is at hand.

It decides which images are read and for which class each is explained; how is left to `maps`.
"""

import numpy as np
import numpy.typing as npt
import torch

from finetune.data.table import ImageStore
from finetune.data.transforms import eval_transform
from finetune.evaluation.predictions import Predictions
from finetune.explain.examples import choose_examples, explained
from finetune.explain.maps import explain, resolve_method
from finetune.explain.store import save_maps
from finetune.models.network import Network
from finetune.runs import Run


def explain_run(
    run: Run, network: Network, store: ImageStore, predictions: Predictions, *, number: int, method: str, seed: int
) -> int:
    """Keep maps of the best, worst and some random images of a run, and return how many; none of sequences.

    Args:
        run: Where they are kept.
        network: Whose predictions they are.
        store: Reads the images.
        predictions: Of the split that the report is about.
        number: Of each kind; 0 for none.
        method: auto, gradcam, rollout or integrated_gradients.
        seed: Of the random ones.

    Raises:
        ConfigError: The method is not known, or not one for this network.
    """
    if number < 1 or network.frames is not None:  # maps are of single images
        return 0
    chosen = resolve_method(network, method)
    rows = explained(choose_examples(predictions, number, seed))
    if not len(rows):
        return 0
    device = next(network.parameters()).device
    transform = eval_transform(network.spec)
    pictures = [store.open(str(predictions.paths[row]), network.spec.channels) for row in rows]
    images = torch.stack([transform.apply(picture) for picture in pictures]).to(device)
    targets = torch.from_numpy(explained_class(predictions, rows)).to(device)
    maps = explain(network, images, targets, chosen)
    save_maps(run, {str(predictions.ids[row]): found for row, found in zip(rows, maps, strict=True)}, chosen)
    return len(rows)


def explained_class(predictions: Predictions, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the class that each of some images is explained for: the most probable one."""
    return np.asarray(predictions.probabilities[rows].argmax(axis=1), np.int64)
