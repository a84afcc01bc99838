"""Data sets of the Hugging Face Hub, or saved in its format: an optional source.

It decides how a data set's columns become a table; downloading, caching and reading are the `datasets` library's.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from finetune.data.decoding import decode
from finetune.data.sources import SPLIT_NAMES, finish, frame_of
from finetune.data.table import ImageTable
from finetune.errors import DataError, MissingExtraError, nearest


@dataclass(frozen=True)
class HubStore:
    """Images inside a data set, addressed as split/number.

    Attributes:
        splits: The data set's splits, with undecoded images.
        column: The image column.
    """

    splits: Any
    column: str

    def content(self, path: str) -> bytes:
        """Return the encoded image."""
        split, number = path.rsplit("/", 1)
        cell = self.splits[split][int(number)][self.column]
        return bytes(cell["bytes"]) if cell["bytes"] is not None else Path(cell["path"]).read_bytes()

    def read(self, path: str, channels: int) -> Image.Image:
        """Return the image with its channels, upright."""
        return decode(self.content(path), channels, name=path)


def hub(
    name: str, config: str | None = None, revision: str | None = None, image_column: str = "image", label_column: str = "label"
) -> ImageTable:
    """Return the images of a data set on the Hub, or of a folder that `save_to_disk` wrote.

    Args:
        name: The data set's name on the Hub, or a local folder.
        config: The data set's configuration, where it has several.
        revision: Commit, tag or branch.
        image_column: Column of images.
        label_column: Column of labels.

    Raises:
        MissingExtraError: The `datasets` library is not installed.
        DataError: The data set cannot be loaded, or lacks a column.
    """
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtraError("data=hub", "hub")
    import datasets

    splits = load(name, config, revision)
    rows: list[dict[str, Any]] = []
    for split, part in splits.items():
        for column in (image_column, label_column):
            if column not in part.column_names:
                raise DataError(f"{name} has no column '{column}' (it has: {', '.join(part.column_names)}).{nearest(column, part.column_names)}")
        feature = part.features[label_column]
        values = [feature.int2str(v) if isinstance(feature, datasets.ClassLabel) else str(v) for v in part[label_column]]
        known = SPLIT_NAMES.get(split.lower()) if len(splits) > 1 else None
        rows += [
            {"id": f"{split}/{number:07d}", "path": f"{split}/{number}", "label": label, "split": known}
            for number, label in enumerate(values)
        ]
        splits[split] = part.cast_column(image_column, datasets.Image(decode=False))
    return finish(frame_of(rows), HubStore(splits, image_column))


def load(name: str, config: str | None, revision: str | None) -> Any:
    """Return the data set as a dict of splits.

    Raises:
        DataError: It cannot be found or downloaded.
    """
    import datasets

    try:
        if Path(name).is_dir() and any(Path(name).glob("*.json")):
            found = datasets.load_from_disk(name)
        else:
            found = datasets.load_dataset(name, config, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"The data set '{name}' cannot be loaded from the Hub ({first}). Without a network, save it to a folder "
            "where there is one (Dataset.save_to_disk) and set data.name to that folder, or use data=folder."
        ) from error
    return dict(found) if isinstance(found, dict) else {"train": found}
