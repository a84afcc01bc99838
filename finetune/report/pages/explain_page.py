"""The page of explanations: what is predicted of each image, its map, and the training images most like it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.data.table import ImageTable
from finetune.data.thumbnails import encode_jpeg
from finetune.evaluation.explain import similar_images as near
from finetune.evaluation.explain.chosen_images import ExplainImage
from finetune.evaluation.explain.overlay import overlay, visible_box
from finetune.models.bundle import Bundle
from finetune.report.html.blocks import Block, Gallery, ImageBlock, Section, Text

THUMBNAIL_SIDE = 220
_Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class KnownImages:
    """The training images that others are compared with, and their features (M, F)."""

    table: ImageTable
    features: _Values


@dataclass(frozen=True)
class Explained:
    """What a network says of some images, and why.

    Attributes:
        probabilities: Of each class (N, K).
        targets: The class that each image is explained for (N,).
        maps: Where each image speaks for it (N, H, W).
        features: Of each image (N, F).
    """

    probabilities: _Values
    targets: npt.NDArray[np.int64]
    maps: _Values
    features: _Values


def explain_sections(
    asked: Sequence[ExplainImage],
    images: Sequence[Image.Image],
    found: Explained,
    bundle: Bundle,
    known: KnownImages | None,
    *,
    neighbours: int,
    method: str,
) -> list[Section]:
    """Return a section for each image, after one that says how maps are read."""
    like = near.most_similar(known.features, found.features, neighbours + 1) if known is not None else None
    sections = [Section("note", "How to read this", (Text(_reading(method)),))]
    for number, (each, image) in enumerate(zip(asked, images, strict=True)):
        label, box = bundle.labels[int(found.targets[number])], visible_box(bundle.network.spec, image.size)
        probable = np.argsort(-found.probabilities[number], kind="stable")[:3].tolist()
        facts = {bundle.labels[place]: f"{found.probabilities[number][place]:.3f}" for place in probable}
        over = encode_jpeg(overlay(image.convert("RGB"), found.maps[number], box), THUMBNAIL_SIDE)
        plain = ImageBlock(each.name, encode_jpeg(image.convert("RGB"), THUMBNAIL_SIDE), facts=facts)
        drawn = ImageBlock("its map", over, description=f"Where {each.name} speaks for {label}")
        blocks: list[Block] = [Gallery(f"Evidence for {label}", (plain, drawn))]
        if known is not None and like is not None:
            blocks.append(neighbour_gallery(known, like, number, each, neighbours))
        sections.append(Section(f"image-{number}", Path(each.name).name, tuple(blocks)))
    return sections


def neighbour_gallery(
    known: KnownImages, like: near.SimilarImages, number: int, asked: ExplainImage, most: int
) -> Gallery:
    """Return the training images that are most like an image, itself aside."""
    frame, names = known.table.frame, known.table.names()
    pictures: list[ImageBlock] = []
    pairs = zip(like.rows[number].tolist(), like.similarity[number].tolist(), strict=True)
    itself = os.path.realpath(asked.path)
    others = [pair for pair in pairs if os.path.realpath(str(frame["path"].iloc[pair[0]])) != itself]
    for row, similarity in others[:most]:
        image = known.table.store.read(str(frame["path"].iloc[row]), 3)
        facts = {"label": ", ".join(names[row]), "similarity": f"{similarity:.3f}"}
        pictures.append(ImageBlock(str(frame["id"].iloc[row]), encode_jpeg(image, THUMBNAIL_SIDE), facts=facts))
    return Gallery("Most alike in training", tuple(pictures), "By the cosine of the features that the head is given.")


def _reading(method: str) -> str:
    """Return how maps of a method are read."""
    said = {
        "gradcam": "Bright places of the last spatial features raise the score of the class (Grad-CAM).",
        "rollout": "Bright places are where attention comes from over all blocks; the class plays no part (rollout).",
        "integrated_gradients": "Bright cells hold the pixels that move the score of the class, up or down "
        "(integrated gradients).",
    }[method]
    return f"{said} A map says where a network looks, not whether it is right to; what it leaves plain was cropped."


def file_names(asked: Sequence[ExplainImage]) -> list[str]:
    """Return the files of the images' overlays: their names with folders joined, and numbers where two are alike."""
    names: list[str] = []
    for each in asked:
        stem = str(Path(each.name).with_suffix("")).strip("/").replace("/", "__")[-120:]
        others = (f"{stem}.jpg" if number == 1 else f"{stem}_{number}.jpg" for number in count(1))
        names.append(next(name for name in others if name not in names))
    return names
