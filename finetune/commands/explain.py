"""finetune explain: why a run says what it says of some images, as maps and by the training images most like them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console

from finetune.config.resolve import resolve, stored_settings
from finetune.config.settings.review_roots import ExplainRootSettings
from finetune.data.augmentation.settings import NOT_AUGMENTED
from finetune.data.cache.store import Cache
from finetune.data.datamodule import ImageData
from finetune.data.thumbnails import encode_jpeg
from finetune.data.transforms import eval_transform
from finetune.errors import ConfigError, DataError
from finetune.evaluation.explain.attributions import attribute, resolve_method
from finetune.evaluation.explain.chosen_images import find_explained, label_number
from finetune.evaluation.explain.overlay import overlay, visible_box
from finetune.evaluation.images import Vocabulary, own_images
from finetune.evaluation.inference import Predictor
from finetune.evaluation.predictions import to_probabilities
from finetune.evaluation.rerun_settings import rerun_settings
from finetune.features.extract import FeatureSettings, extract_features
from finetune.models.bundle import Bundle, load_bundle
from finetune.report.html.render import render
from finetune.report.pages.explain_page import Explained, KnownImages, explain_sections, file_names
from finetune.runs.run import Run, write_atomic
from finetune.runtime.device import DevicePass
from finetune.training.build import open_cache


def explain(cfg: DictConfig) -> None:
    """Write an overlay for each image, and a page with predictions, maps and nearest training images.

    Raises:
        ConfigError: The run, the images or a setting is not there.
        DataError: An image cannot be read.
    """
    settings = resolve(cfg, ExplainRootSettings)
    run = Run.find(settings.run, Path(settings.runs))
    bundle = load_bundle(run.model_dir)
    if bundle.network.frames is not None:
        raise ConfigError(
            "finetune explain draws maps over single images, and this run reads sequences of frames. Use finetune "
            "predict, or name a run on single images: run=PATH."
        )
    output = output_folder(settings.output)
    given = settings.ids if isinstance(settings.ids, list) else [settings.ids]
    ids = [str(each) for each in given if each is not None]
    asked = find_explained(settings.input, ids, settings.split, run, bundle)
    target = label_number(settings.target, bundle)
    method = resolve_method(bundle.network, settings.method)
    device_pass = rerun_settings(run, settings.device).device_pass
    bundle.network.to(device_pass.device)
    images = [each.store.read(each.path, bundle.network.spec.channels) for each in asked]
    known = training_images(run, bundle, device_pass, open_cache(settings.cache)) if settings.neighbours else None
    found = explain_images(images, bundle, target, method, device_pass)
    for name, image, values in zip(file_names(asked), images, found.maps, strict=True):
        drawn = overlay(image.convert("RGB"), values, visible_box(bundle.network.spec, image.size))
        write_atomic(output / name, encode_jpeg(drawn, quality=90))
    sections = explain_sections(asked, images, found, bundle, known, neighbours=settings.neighbours, method=method)
    page = render("Explanations", sections, subtitle=f"{run.path.name}, {method.replace('_', ' ')}")
    write_atomic(output / "explain.html", page)
    Console().print(f"Explained {len(asked):,} images: {output / 'explain.html'}", highlight=False, soft_wrap=True)


def training_images(run: Run, bundle: Bundle, device_pass: DevicePass, cache: Cache | None) -> KnownImages | None:
    """Return the run's training images and their features, from the cache where they are; None where they are gone."""
    vocabulary = Vocabulary(bundle.labels, bundle.task)
    try:
        table = own_images(run, stored_settings(run.config).data.source, "train", vocabulary).table
    except DataError as error:
        Console(stderr=True).print(f"Nearest training images are left out: {error}", highlight=False, markup=False)
        return None
    images = ImageData(table, bundle.network.spec, NOT_AUGMENTED, eval_batch_size=32, workers=0)
    rows = np.arange(len(table), dtype=np.int64)
    found = extract_features(bundle.network, images, rows, FeatureSettings(cache=cache), device_pass)
    return KnownImages(table, found.take(rows).numpy())


def explain_images(
    images: Sequence[Image.Image], bundle: Bundle, target: int | None, method: str, device_pass: DevicePass
) -> Explained:
    """Return what is predicted of each image, and why."""
    network = bundle.network
    transform = eval_transform(network.spec)
    inputs = torch.stack([transform(image) for image in images])
    seen = Predictor(network, device_pass).views(inputs[:, None])
    probabilities = to_probabilities(bundle.calibrate(seen.logits), bundle.task)
    targets = probabilities.argmax(axis=1) if target is None else np.full(len(images), target)
    assert seen.features is not None
    maps = attribute(network, inputs.to(device_pass.device), torch.from_numpy(targets).to(device_pass.device), method)
    return Explained(probabilities, targets, maps, seen.features)


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
