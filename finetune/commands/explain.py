"""The verb explain: why a run says what it says of some images, as maps and by the training images most like them.

It is a composition root, the only code of explanations that sees a config.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console

from finetune.config.compose import to_dict
from finetune.data.cache.store import Cache
from finetune.data.datamodule import ImageData
from finetune.data.image_stores import FileStore
from finetune.data.table import ImageStore, ImageTable
from finetune.data.thumbnails import encoded
from finetune.data.transforms import Augment, eval_transform
from finetune.errors import ConfigError, DataError, nearest
from finetune.evaluation.explain import similar_images as near
from finetune.evaluation.explain.attributions import attribute as explain_images
from finetune.evaluation.explain.attributions import resolve_method
from finetune.evaluation.explain.overlay import overlay, seen_box
from finetune.evaluation.images import Vocabulary, own_images
from finetune.evaluation.inference import Predictor
from finetune.evaluation.prediction_table import find_images
from finetune.evaluation.predictions import to_probabilities
from finetune.evaluation.rerun_settings import rerun_settings
from finetune.features.extract import FeatureSettings, FeatureSource
from finetune.models.bundle import Bundle, load_bundle
from finetune.report.html.blocks import Block, Gallery, ImageBlock, Section, Text
from finetune.report.html.render import render
from finetune.runs.run import Run, write_atomic
from finetune.runtime.device import DevicePass
from finetune.training.build import open_cache

SIDE, MOST = 220, 200
_Config = dict[str, Any]
_Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ExplainImage:
    """An image that is to be explained: what it is called, where it is, and what reads it."""

    name: str
    path: str
    store: ImageStore


@dataclass(frozen=True)
class Known:
    """The training images that others are compared with, and their features (M, F)."""

    table: ImageTable
    features: _Values


def explain(cfg: DictConfig) -> None:
    """Write an overlay for each image, and a page with predictions, maps and nearest training images.

    Raises:
        ConfigError: The run, the images or a setting is not there.
        DataError: An image cannot be read.
    """
    config = to_dict(cfg)
    run = Run.find(config["run"], Path(config["runs"]))
    bundle = load_bundle(run.model_dir)
    if bundle.network.frames is not None:
        raise ConfigError(
            "finetune explain draws maps over single images, and this run reads sequences of frames. Use finetune "
            "predict, or name a run on single images: run=PATH."
        )
    output = output_folder(config["output"])
    asked = find(config, run, bundle)
    target = label_number(config["target"], bundle)
    method = resolve_method(bundle.network, config["method"])
    settings = rerun_settings(run, config["device"])
    bundle.network.to(settings.machine.device)
    images = [each.store.read(each.path, bundle.network.spec.channels) for each in asked]
    known = (
        training_images(run, bundle, settings.machine, open_cache(config["cache"])) if config["neighbours"] else None
    )
    sections = _describe(asked, images, bundle, known, config, target, method, settings.machine)
    for name, image, values in zip(file_names(asked), images, sections.maps, strict=True):
        drawn = overlay(image.convert("RGB"), values, seen_box(bundle.network.spec, image.size))
        write_atomic(output / name, encoded(drawn, quality=90))
    page = render("Explanations", sections.sections, subtitle=f"{run.path.name}, {method.replace('_', ' ')}")
    write_atomic(output / "explain.html", page)
    Console().print(f"Explained {len(asked):,} images: {output / 'explain.html'}", highlight=False, soft_wrap=True)


def find(config: Mapping[str, Any], run: Run, bundle: Bundle) -> list[ExplainImage]:
    """Return the images that were named: a file, a folder, or ids of the run's own.

    Raises:
        ConfigError: Neither or both were named, there are too many, or the run has no such image.
    """
    given = config["ids"] if isinstance(config["ids"], list) else [config["ids"]]
    ids = [str(each) for each in given if each is not None]
    if (config["input"] is None) == (not ids):
        raise ConfigError("Name what is explained: input=FILE_OR_FOLDER, or ids=[…] of the run's own images.")
    if config["input"] is not None:
        paths = find_images(Path(config["input"]).expanduser())
        found = [ExplainImage(path, path, FileStore()) for path in paths]
    else:
        found = own(run, ids, config["split"], bundle)
    if len(found) > MOST:
        raise ConfigError(f"{len(found):,} images are too many for a page. Name at most {MOST}.")
    return found


def own(run: Run, ids: Sequence[str], split: str, bundle: Bundle) -> list[ExplainImage]:
    """Return images of the run by their ids.

    Raises:
        ConfigError: There is no such image.
    """
    source = run.config["data"]["source"]
    table = own_images(run, source, split, Vocabulary(bundle.labels, bundle.task)).table
    places = dict(zip(table.frame["id"].tolist(), table.frame["path"].tolist(), strict=True))
    unknown = [name for name in ids if name not in places]
    if unknown:
        raise ConfigError(
            f"ids: '{unknown[0]}' is no image of the run's {split} split.{nearest(unknown[0], places)} Set split= for "
            "another."
        )
    return [ExplainImage(name, str(places[name]), table.store) for name in ids]


def label_number(target: str | None, bundle: Bundle) -> int | None:
    """Return the number of the class that is explained; None for the predicted one of each image.

    Raises:
        ConfigError: The run does not know it.
    """
    if target is None:
        return None
    if target not in bundle.labels:
        raise ConfigError(f"target={target} is not a class of the run.{nearest(target, bundle.labels)}")
    return bundle.labels.index(target)


def training_images(run: Run, bundle: Bundle, machine: DevicePass, cache: Cache | None) -> Known | None:
    """Return the run's training images and their features, from the cache where they are; None where they are gone."""
    vocabulary = Vocabulary(bundle.labels, bundle.task)
    try:
        table = own_images(run, run.config["data"]["source"], "train", vocabulary).table
    except DataError as error:
        Console(stderr=True).print(f"Nearest training images are left out: {error}", highlight=False, markup=False)
        return None
    images = ImageData(table, bundle.network.spec, Augment(enabled=False), eval_batch_size=32, workers=0)
    source = FeatureSource(bundle.network, images, FeatureSettings(cache=cache), machine)
    rows = np.arange(len(table), dtype=np.int64)
    return Known(table, source.features(rows).take(rows).numpy())


@dataclass(frozen=True)
class Described:
    """The sections of the page, and the map of each image."""

    sections: list[Section]
    maps: _Values


def _describe(
    asked: Sequence[ExplainImage],
    images: Sequence[Image.Image],
    bundle: Bundle,
    known: Known | None,
    config: Mapping[str, Any],
    target: int | None,
    method: str,
    machine: DevicePass,
) -> Described:
    """Return a section for each image: what is predicted, why, and what it is like."""
    network, device = bundle.network, machine.device
    transform = eval_transform(network.spec)
    inputs = torch.stack([transform(image) for image in images])
    seen = Predictor(network, machine).views(inputs[:, None])
    probabilities = to_probabilities(bundle.calibrate(seen.logits), bundle.task)
    targets = probabilities.argmax(axis=1) if target is None else np.full(len(images), target)
    maps = explain_images(network, inputs.to(device), torch.from_numpy(targets).to(device), method)
    assert seen.features is not None
    like = near.most_similar(known.features, seen.features, config["neighbours"] + 1) if known is not None else None
    sections = []
    for number, (each, image) in enumerate(zip(asked, images, strict=True)):
        box = seen_box(network.spec, image.size)
        label = bundle.labels[int(targets[number])]
        facts = most_probable(probabilities[number], bundle.labels)
        over = encoded(overlay(image.convert("RGB"), maps[number], box), SIDE)
        plain = ImageBlock(each.name, encoded(image.convert("RGB"), SIDE), facts=facts)
        drawn = ImageBlock("its map", over, description=f"Where {each.name} speaks for {label}")
        blocks: list[Block] = [Gallery(f"Evidence for {label}", (plain, drawn))]
        if known is not None and like is not None:
            blocks.append(neighbour_gallery(known, like, number, each, config["neighbours"]))
        sections.append(Section(f"image-{number}", Path(each.name).name, tuple(blocks)))
    note = Section("note", "How to read this", (Text(_reading(method)),))
    return Described([note, *sections], maps)


def most_probable(probabilities: _Values, labels: Sequence[str], number: int = 3) -> dict[str, str]:
    """Return the most probable classes and their probabilities."""
    order = np.argsort(-probabilities, kind="stable")[:number]
    return {labels[place]: f"{probabilities[place]:.3f}" for place in order.tolist()}


def neighbour_gallery(known: Known, like: near.SimilarImages, number: int, asked: ExplainImage, most: int) -> Gallery:
    """Return the training images that are most like an image, itself aside."""
    frame, names = known.table.frame, known.table.names()
    pictures: list[ImageBlock] = []
    pairs = zip(like.rows[number].tolist(), like.similarity[number].tolist(), strict=True)
    itself = os.path.realpath(asked.path)
    others = [pair for pair in pairs if os.path.realpath(str(frame["path"].iloc[pair[0]])) != itself]
    for row, similarity in others[:most]:
        image = known.table.store.read(str(frame["path"].iloc[row]), 3)
        facts = {"label": ", ".join(names[row]), "similarity": f"{similarity:.3f}"}
        pictures.append(ImageBlock(str(frame["id"].iloc[row]), encoded(image, SIDE), facts=facts))
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


def output_folder(output: str) -> Path:
    """Return where page and overlays go.

    Raises:
        ConfigError: It, or what it would lie in, is a file.
    """
    path = Path(output).expanduser()
    for each in (path, *path.parents):
        if each.is_file():
            raise ConfigError(
                f"output={path}: {each} is a file. Name a folder: output={each.with_suffix('')}_explained"
            )
    return path
