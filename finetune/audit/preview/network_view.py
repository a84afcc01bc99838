"""What the network sees of a few training images: in evaluation, and in training epoch by epoch.

The loaders of training make the images; here they are brought back to pixels.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from finetune.config.settings.training_groups import Augment
from finetune.data.color_modes import MODES
from finetune.data.datamodule import ImageBatch, ImageData, seeded
from finetune.data.sampling import Draw
from finetune.data.table import ImageTable
from finetune.data.transforms import InputSpec
from finetune.training.mixing import build_mixing

Rows = npt.NDArray[np.int64]
# epochs that are looked through for draws of an image, for each view that is to be shown
_PATIENCE = 20


@dataclass(frozen=True)
class NetworkView:
    """An image in all the ways in which a network is shown it.

    Attributes:
        row: Its row in the table.
        original: As it is stored, upright.
        evaluation: As evaluation sees it.
        training: As training sees it in its first epochs, one after the other.
    """

    row: int
    original: Image.Image
    evaluation: Image.Image
    training: tuple[Image.Image, ...]


@dataclass(frozen=True)
class MixedImage:
    """An image made of two.

    Attributes:
        image: As training sees it.
        shares: What its target is made of: label and share, the largest first.
    """

    image: Image.Image
    shares: tuple[tuple[str, float], ...]


def choose_rows(table: ImageTable, number: int, seed: int) -> Rows:
    """Return rows of training images, drawn by a seed: one of each class, then a second one of each, and so on.

    Images with several labels count as of a class of their own for each combination.
    """
    rows = table.rows("train")
    classes: dict[tuple[str, ...], list[int]] = defaultdict(list)
    names = table.names()
    for row in np.random.default_rng(seed).permutation(rows).tolist():
        classes[tuple(names[row])].append(row)
    turns = (row for turn in zip_longest(*classes.values()) for row in turn if row is not None)
    return np.array([row for row, _ in zip(turns, range(number), strict=False)], dtype=np.int64)


def network_views(images: ImageData, rows: Rows, views: int) -> list[NetworkView]:
    """Return images in all the ways in which a network is shown them.

    Args:
        images: The loaders of a run.
        rows: Of the images.
        views: Epochs of training that are shown, at most.

    Raises:
        DataError: An image cannot be read.
    """
    frame, channels = images.table.frame, images.spec.channels
    plain = [Draw(row, 0, True) for row in rows.tolist()]
    evaluated = denormalised_pixels(load_batch(images, plain, augmented=False)["image"], images.spec)
    draws = first_draws(images, rows, views)
    found = []
    for row, evaluation in zip(rows.tolist(), evaluated, strict=True):
        varied = (
            denormalised_pixels(load_batch(images, draws[row], augmented=True)["image"], images.spec)
            if draws[row]
            else []
        )
        original = images.table.store.read(str(frame["path"].iloc[row]), channels)
        found.append(NetworkView(row, original, evaluation, tuple(varied)))
    return found


def first_draws(images: ImageData, rows: Rows, views: int) -> dict[int, list[Draw]]:
    """Return the first draws that a run of this seed makes of each row, as many as `views` or as its epochs have.

    Where classes are balanced an image may be drawn often, or not at all; draws that are repeats may be varied more.
    """
    training = images.table.rows("train")
    batches = images.balance.batches(images.table, training, images.batch_size, seed=images.seed)
    found: dict[int, list[Draw]] = {row: [] for row in rows.tolist()}
    for epoch in range(_PATIENCE * views):
        batches.set_epoch(epoch)
        (order, repeats), seeds = batches.plan(), batches.seeds()
        for place in np.flatnonzero(np.isin(order[: sum(batches.sizes())], rows)).tolist():
            draw = Draw(int(order[place]), int(seeds[place]), True, bool(repeats[place]))
            found[draw.row].append(draw)
        if all(len(draws) >= views for draws in found.values()):
            break
    return {row: draws[:views] for row, draws in found.items()}


def load_batch(images: ImageData, draws: Sequence[Draw], *, augmented: bool) -> ImageBatch:
    """Return a batch of draws as a run's loaders make it."""
    rows = np.array([draw.row for draw in draws], dtype=np.int64)
    (batch,) = images.draws([list(draws)], augmented=augmented, stored=images.stored(rows, augmented=augmented))
    return {**batch, "image": batch["image"].to("cpu")}


def mix_images(
    images: ImageData, rows: Rows, mixing: Callable[[ImageBatch], ImageBatch], seed: int
) -> list[MixedImage]:
    """Return images, as training first sees them, mixed with each other as those of a batch are.

    Raises:
        DataError: An image cannot be read.
    """
    draws = [drawn[0] for drawn in first_draws(images, rows, 1).values() if drawn]
    if len(draws) < 2:
        return []
    with seeded(seed):
        found = mixing(load_batch(images, draws, augmented=True))
    made = zip(denormalised_pixels(found["image"], images.spec), found["target"], strict=True)
    return [MixedImage(image, mixed_label_shares(target, images.table.labels)) for image, target in made]


def mixed_label_shares(target: Tensor, labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return the labels of a mixed target (K,) and their shares, the largest first."""
    values = [(label, float(share)) for label, share in zip(labels, target, strict=True) if share > 0]
    return tuple(sorted(values, key=lambda pair: -pair[1]))


def denormalised_pixels(images: Tensor, spec: InputSpec) -> list[Image.Image]:
    """Return images (B, C, H, W) as they were before normalisation."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    values = ((images * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(each.squeeze(), MODES[spec.channels]) for each in values]


def mixtures_of(images: ImageData, rows: Rows, augment: Augment) -> dict[str, list[MixedImage]]:
    """Return mixed images, by the name of each mixing that is on."""
    table = images.table
    alone = {"Mixup": replace(augment, cutmix=0.0), "CutMix": replace(augment, mixup=0.0)}
    found = {}
    for name, one in alone.items():
        mixing = build_mixing(one, num_classes=table.num_classes, task=table.task)
        if mixing is not None:
            found[name] = mix_images(images, rows, mixing, images.seed)
    return found
