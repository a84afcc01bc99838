"""The images that `finetune explain` is asked about, and the class that they are explained for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.config.resolve import stored_settings
from finetune.data.image_stores import FileStore
from finetune.data.table import ImageStore
from finetune.errors import ConfigError, nearest
from finetune.evaluation.image_files import find_images
from finetune.evaluation.images import Vocabulary, own_images
from finetune.models.bundle import Bundle
from finetune.runs.run import Run

MOST_EXPLAINED = 200


@dataclass(frozen=True)
class ExplainImage:
    """An image that is to be explained: what it is called, where it is, and what reads it."""

    name: str
    path: str
    store: ImageStore


def find_explained(given: str | None, ids: Sequence[str], split: str, run: Run, bundle: Bundle) -> list[ExplainImage]:
    """Return the images that were named: a file or folder, or ids of the run's own.

    Raises:
        ConfigError: Neither or both were named, there are too many, or the run has no such image.
    """
    if (given is None) == (not ids):
        raise ConfigError("Name what is explained: input=FILE_OR_FOLDER, or ids=[…] of the run's own images.")
    if given is not None:
        found = [
            ExplainImage(path, path, FileStore(bundle.network.spec.value_range))
            for path in find_images(Path(given).expanduser())
        ]
    else:
        found = own_by_ids(run, ids, split, bundle)
    if len(found) > MOST_EXPLAINED:
        raise ConfigError(f"{len(found):,} images are too many for a page. Name at most {MOST_EXPLAINED}.")
    return found


def own_by_ids(run: Run, ids: Sequence[str], split: str, bundle: Bundle) -> list[ExplainImage]:
    """Return images of the run by their ids.

    Raises:
        ConfigError: There is no such image.
    """
    source = stored_settings(run.config).data.source
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
