"""Examples: images the run is best at, worst at, and some at random, with attribution maps."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from finetune.config.compose import instantiate_target
from finetune.config.settings.checked import read_target
from finetune.data.image_stores import FileStore
from finetune.data.table import ImageStore, ranged_store
from finetune.data.thumbnails import encode_jpeg
from finetune.data.transforms import InputSpec
from finetune.errors import FinetuneError
from finetune.evaluation.explain.attribution_store import load_maps
from finetune.evaluation.explain.examples import choose_examples
from finetune.evaluation.explain.overlay import overlay, visible_box
from finetune.evaluation.predictions import Predictions
from finetune.report.html.blocks import Block, Gallery, ImageBlock, Section
from finetune.report.run_data import RunData, read_spec
from finetune.report.sections.section_split import about_split

NUMBER, SIDE = 12, 200
# sources of ours that name images by something else than their path, and need no network
_LOCAL = tuple(f"finetune.data.sources.{name}" for name in ("digits", "sequences", "sequence_table"))
_TITLES = {"best": "Right and surest", "worst": "Wrong and surest", "random": "At random"}


@about_split
def examples_section(run_data: RunData, split: str, predictions: Predictions) -> Section | None:
    """Return the galleries; None where nothing was predicted."""
    number = int((run_data.config.get("explain") or {}).get("images") or NUMBER)
    chosen = choose_examples(predictions, number, int(run_data.config.get("seed", 0)))
    kept = load_maps(run_data.folder or run_data.run.path)
    maps, method = kept if kept is not None else ({}, "")
    store = find_store(run_data, predictions)
    spec = read_spec(run_data.run)
    blocks: list[Block] = []
    gone = 0
    for kind, rows in chosen.items():
        pictures = tuple(_picture(predictions, row, store, maps, spec) for row in rows.tolist())
        gone += sum(each.image is None for each in pictures)
        if pictures:
            blocks.append(Gallery(_TITLES[kind], pictures))
    lead = f"Maps by {method.replace('_', ' ')}: bright is what speaks for the predicted class." if maps else (
        "No maps were made of these images (explain.images=0, or the run could not explain them)."
    )  # fmt: skip
    if gone:
        lead += f" {gone} images are not where they were, so they are not shown."
    return Section("examples", "Examples", tuple(blocks), lead)


def find_store(run_data: RunData, predictions: Predictions) -> ImageStore | None:
    """Return what reads the images: as their evaluation did, from files, or from the run's source."""
    found, spec = _own_store(run_data, predictions), read_spec(run_data.run)
    return found if found is None or spec is None else ranged_store(found, spec.value_range)


def _own_store(run_data: RunData, predictions: Predictions) -> ImageStore | None:
    """Return what reads the images, by whichever range of values."""
    if run_data.store is not None:
        return run_data.store
    paths = [Path(str(path)) for path in predictions.paths[:1]]
    if not paths or paths[0].is_absolute():
        return FileStore()
    source = run_data.config.get("data", {}).get("source", {})
    if not isinstance(source, dict) or source.get("_target_") not in _LOCAL:  # a page builds nothing else
        return None
    try:
        store: ImageStore = instantiate_target(read_target("data.source", source)).store
    except Exception:  # noqa: BLE001 - the images may be gone, or others
        return None
    return store


def _picture(
    predictions: Predictions,
    row: int,
    store: ImageStore | None,
    maps: dict[str, npt.NDArray[np.float32]],
    spec: InputSpec | None,
) -> ImageBlock:
    """Return an image with what is predicted of it, and its map where there is one."""
    name = str(predictions.ids[row])
    label, guess = predictions.label_names[row], predictions.predicted_names[row]
    facts = {"label": label or "none", "predicted": f"{guess or 'none'} {predictions.probabilities[row].max():.2f}"}
    image = read(store, str(predictions.paths[row]))
    if image is None:
        return ImageBlock(name, None, facts=facts)
    over = None
    if name in maps and spec is not None:
        over = encode_jpeg(overlay(image, maps[name], visible_box(spec, image.size)), SIDE)
    said = f"An image of {label or 'no label'}, predicted {guess or 'none'}"
    return ImageBlock(name, encode_jpeg(image, SIDE), over, said, facts)


def read(store: ImageStore | None, path: str) -> Image.Image | None:
    """Return an image; None where it cannot be read."""
    if store is None:
        return None
    try:
        return store.read(path, 3)
    except (FinetuneError, OSError, IndexError, ValueError):
        return None
