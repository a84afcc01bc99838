"""Data sets of the Hugging Face Hub, or saved in its format: an optional source."""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from finetune.data.decoding import DecodedImage
from finetune.data.sources.table_builder import SPLIT_NAMES, build_table, rename_val_split
from finetune.data.table import ImageTable
from finetune.data.value_range import ValueRange
from finetune.errors import DataError, MissingExtraError, nearest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubStore:
    """Images inside a data set, addressed as split/number.

    Attributes:
        splits: The data set's splits, with undecoded images.
        column: The image column.
        value_range: What values of more than 8 bits are black and white; None takes a guess of each image.
    """

    splits: Any
    column: str
    value_range: ValueRange | None = None

    def content(self, path: str) -> bytes:
        """Return the encoded image."""
        split, number = path.rsplit("/", 1)
        cell = self.splits[split][int(number)][self.column]
        if cell is None:
            raise DataError("the cell is empty")
        return bytes(cell["bytes"]) if cell["bytes"] is not None else Path(cell["path"]).read_bytes()

    def open(self, path: str, channels: int) -> DecodedImage:
        """Open the image."""
        return DecodedImage.open(self.content(path), channels, name=path, value_range=self.value_range)

    def read(self, path: str, channels: int) -> Image.Image:
        """Return the image with its channels, upright."""
        return self.open(path, channels).whole()


def hub(
    name: str,
    config: str | None = None,
    revision: str | None = None,
    image_column: str = "image",
    label_column: str = "label",
    val_means: str = "val",
) -> ImageTable:
    """Return the images of a data set on the Hub, or of a folder that `save_to_disk` wrote.

    Rows without a label, as some published test splits have them, are left out with a warning.

    Args:
        name: The data set's name on the Hub, or a local folder.
        config: The data set's configuration, where it has several.
        revision: Commit, tag or branch.
        image_column: Column of images.
        label_column: Column of labels: one per image, or a list of them.
        val_means: As for `folder`.

    Raises:
        MissingExtraError: The `datasets` library is not installed.
        DataError: The data set cannot be loaded, or lacks a column.
        ConfigError: `val_means` is not known.
    """
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtraError("data=hub", "hub")
    splits = _load(name, config, revision)
    columns: dict[str, list[Any]] = {"id": [], "label": [], "split": []}
    for split, part in splits.items():
        labels = _labels_of(part, label_column, name)
        named = [number for number, label in enumerate(labels) if label is not None]
        if len(named) < len(labels):
            missing = f"{len(labels) - len(named):,} of {len(labels):,}"
            log.warning("%s images of the split %s have no label and are left out.", missing, split)
        columns["id"] += [f"{split}/{number:07d}" for number in named]
        columns["label"] += [labels[number] for number in named]
        columns["split"] += [SPLIT_NAMES.get(split.lower()) if len(splits) > 1 else None] * len(named)
        splits[split] = with_encoded_images(part, image_column, name)
    if not columns["id"]:
        raise DataError(f"The data set '{name}' has no images with a label in '{label_column}'. Set data.label_column.")
    columns["path"] = columns["id"]
    columns["split"] = rename_val_split(columns["split"], val_means)
    several = any(isinstance(label, tuple) for label in columns["label"])
    return build_table(columns, HubStore(splits, image_column), multilabel=several)


def _check_column(part: Any, column: str, key: str, name: str) -> None:
    """Check that a data set has a column.

    Raises:
        DataError: It has not; says which setting names it.
    """
    if column not in part.column_names:
        raise DataError(
            f"The data set '{name}' has no column '{column}' (it has: {', '.join(part.column_names)})."
            f"{nearest(column, part.column_names)} Set data.{key}."
        )


def _labels_of(part: Any, column: str, name: str) -> list[Any]:
    """Return each row's label, a tuple where it has a list of them, None where it has none."""
    _check_column(part, column, "label_column", name)
    feature = part.features[column]
    feature = getattr(feature, "feature", feature)  # of a list

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(sorted({named(one) for one in value} - {None}))
        if value is None or value == "" or (hasattr(feature, "int2str") and value < 0):
            return None
        return feature.int2str(value) if hasattr(feature, "int2str") else str(value)

    return [named(value) for value in part[column]]


def with_encoded_images(part: Any, column: str, name: str) -> Any:
    """Return a split whose images are left undecoded.

    Raises:
        DataError: The column holds no images.
    """
    import datasets

    _check_column(part, column, "image_column", name)
    try:
        return part.cast_column(column, datasets.Image(decode=False))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise DataError(
            f"The column '{column}' of the data set '{name}' holds no images. Set data.image_column."
        ) from error


def _load(name: str, config: str | None, revision: str | None) -> dict[str, Any]:
    """Return the splits of a data set.

    Raises:
        DataError: It cannot be found or downloaded.
    """
    import datasets

    folder = Path(name).expanduser()
    try:
        if any((folder / file).is_file() for file in ("dataset_info.json", "dataset_dict.json")):
            found = datasets.load_from_disk(str(folder))
        else:
            with without_retries_shown():
                found = datasets.load_dataset(name, config, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        near = folder.parent.is_dir() and len(folder.parts) > 1
        siblings = [entry.name for entry in folder.parent.iterdir()] if near else []
        raise DataError(
            f"The data set '{name}' cannot be loaded ({first}).{nearest(folder.name, siblings)} Without a network, "
            "give a local folder: save the data set where there is one (Dataset.save_to_disk) and set data.name to its "
            "folder, or use data=folder."
        ) from error
    return dict(found) if isinstance(found, dict) else {"train": found}


@contextmanager
def without_retries_shown() -> Iterator[None]:
    """Let the library try again in silence: what comes of it is said in the end."""
    noisy = [logging.getLogger(name) for name in ("huggingface_hub", "datasets")]
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
