"""Images to evaluate: those of the run's own split, or other ones, in the run's vocabulary."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.config.compose import instantiate_target
from finetune.config.resolve import stored_settings
from finetune.config.settings.checked import Target
from finetune.data.image_stores import FileStore
from finetune.data.table import (
    ImageTable,
    as_multilabel,
    load_saved_table,
    ranged_store,
    value_range_of,
    with_value_range,
)
from finetune.data.verification import verify_images
from finetune.errors import ConfigError, DataError, FinetuneError, nearest
from finetune.evaluation.predictions import PredictionTask
from finetune.runs.run import Run


class ImagesGoneError(DataError):
    """The images of a run are not where they were."""


@dataclass(frozen=True)
class SourceChanges:
    """What of a run's data source is replaced, so that other images are looked at.

    Attributes:
        arguments: Of the source, such as root.
        source: A whole other source.
        unreadable: error or skip; None for the run's own.
    """

    arguments: Mapping[str, Any]
    source: Target | None
    unreadable: str | None

    def __bool__(self) -> bool:
        """Return whether anything is replaced."""
        return bool(self.arguments or self.source or self.unreadable)


@dataclass(frozen=True)
class Vocabulary:
    """The labels a model knows, in order, and whether an image may have several."""

    labels: tuple[str, ...]
    task: PredictionTask


@dataclass(frozen=True)
class EvaluationImages:
    """Images to evaluate, all of one split, and what the reader of their scores must know.

    Attributes:
        table: The images, labelled in the run's vocabulary.
        same: Whether they are those that the run stored for the split.
        notes: Sentences for the reader.
    """

    table: ImageTable
    same: bool
    notes: tuple[str, ...] = ()


def select_images(run: Run, changes: SourceChanges, split: str, vocabulary: Vocabulary) -> EvaluationImages:
    """Take the run's own images, or others where anything of its data is changed.

    Raises:
        ConfigError: The changes name no other images.
    """
    data = stored_settings(run.config).data
    if not changes:
        return own_images(run, data.source, split, vocabulary)
    if not changes.arguments and changes.source is None:
        raise ConfigError(
            "data.unreadable is for other images; the run's own must all be there. Add data.root=… to it."
        )
    source = override_source(data.source, changes)
    return other_images(run, source, split, vocabulary, changes.unreadable or data.unreadable)


def own_images(run: Run, source: Target, split: str, vocabulary: Vocabulary) -> EvaluationImages:
    """Take the very images that the run stored for the split: at their stored places, else from the source.

    Raises:
        ImagesGoneError: Some are not there.
        DataError: Some have another content than they had, or the run has no such split.
    """
    stored = one_split(run_table(run), split)
    places = [Path(path) for path in stored.frame["path"]]
    table = (
        stored if all(path.is_absolute() and path.is_file() for path in places) else _from_source(stored, source, split)
    )
    try:
        table.check_contents()
    except OSError as error:
        raise ImagesGoneError(f"The run's images cannot be read ({error}).") from error
    return EvaluationImages(map_to_vocabulary(table, vocabulary), same=True)


def _from_source(stored: ImageTable, target: Target, split: str) -> ImageTable:
    try:
        source: ImageTable = instantiate_target(target)
    except FinetuneError as error:
        raise ImagesGoneError(f"The run's images cannot be found: {error}") from error
    paths = dict(zip(source.frame["id"], source.frame["path"], strict=True))
    ids = stored.frame["id"]
    gone = [name for name in ids if name not in paths]
    if gone:
        raise ImagesGoneError(f"{len(gone):,} of the run's {len(ids):,} {split} images are gone (first: {gone[0]}).")
    store = ranged_store(source.store, value_range_of(stored.store))
    return replace(stored, frame=stored.frame.assign(path=ids.map(paths)), store=store)


def other_images(run: Run, source: Target, split: str, vocabulary: Vocabulary, unreadable: str) -> EvaluationImages:
    """Take other images: the split of that name where the source has splits, else all of them.

    Raises:
        DataError: A label is unknown to the run, the split is empty, or an image cannot be read.
    """
    table: ImageTable = instantiate_target(source)
    if vocabulary.task == "multilabel" and any(
        source.arguments.get(name) for name in ("label_columns", "label_separator")
    ):
        table = as_multilabel(table)  # that each image has one label here says nothing of the kind
    trained_on = run_table(run)
    if table.frame["split"].isna().all():
        table = replace(table, frame=table.frame.assign(split=split))
    table, known = map_to_vocabulary(one_split(table, split), vocabulary), value_range_of(trained_on.store)
    table = verify_images(table, unreadable, value_range=known, find_range=False)
    saved = trained_on.frame
    here = table.frame["digest"]
    own = saved.loc[saved["split"] == split, "digest"]
    if sorted(here) == sorted(own.dropna()):
        note = f"These are the run's own {split} images: the content of all {len(here):,} is the same."
        return EvaluationImages(table, same=True, notes=(note,))
    shared = int(here.isin(own).sum())
    notes = [
        f"The images differ from the run's own {len(own):,} of split {split}: {len(here):,} here, {shared:,} in both."
    ]
    if table.skipped:
        notes.append(f"{len(table.skipped):,} images cannot be read and are left out.")
    seen = int(here.isin(saved.loc[saved["split"].isin({"train", "val"} - {split}), "digest"].dropna()).sum())
    if seen:
        notes.append(f"{seen:,} of the {len(here):,} images helped to train or select the run: the scores flatter it.")
    return EvaluationImages(table, same=False, notes=tuple(notes))


def override_source(stored: Target, changes: SourceChanges) -> Target:
    """Put changes like root=… into the source of a stored run; a source with a target replaces it whole.

    Raises:
        ConfigError: The run's source has no such setting.
    """
    if changes.source is not None:
        return Target(changes.source.path, {**changes.source.arguments, **changes.arguments})
    known = list(stored.arguments)
    for name in changes.arguments:
        if name not in known:
            raise ConfigError(
                f"data.{name} is not a setting of this run's source ({', '.join(known) or 'it has none'})."
                f"{nearest(name, known)} For another kind of images type, say, "
                "'data.source={_target_: finetune.data.sources.folder, root: photos}'."
            )
    return Target(stored.path, {**stored.arguments, **changes.arguments})


def one_split(table: ImageTable, split: str) -> ImageTable:
    """Keep the images of the split.

    Raises:
        DataError: There is none.
    """
    rows = table.rows(split)
    if not len(rows):
        splits = sorted(table.frame["split"].dropna().unique())
        hint = nearest(split, splits)
        raise DataError(f"There are no images in split '{split}'. Use split= with one of: {', '.join(splits)}.{hint}")
    return replace(table, frame=table.frame.iloc[rows].reset_index(drop=True))


def map_to_vocabulary(table: ImageTable, vocabulary: Vocabulary) -> ImageTable:
    """Number the table's labels as the model does.

    Raises:
        DataError: The model does not know a label, or one side has several labels per image and the other one.
    """
    if table.task != vocabulary.task:
        raise DataError(f"The images are {table.task}, the run is {vocabulary.task}. Give labels of the run's kind.")
    unknown = sorted(set(table.labels) - set(vocabulary.labels))
    if unknown:
        known = ", ".join(vocabulary.labels[:10]) + (" …" if len(vocabulary.labels) > 10 else "")
        raise DataError(
            f"The run does not know {len(unknown):,} of the labels (first: '{unknown[0]}'); it knows {known}. "
            f"Rename or remove them.{nearest(unknown[0], vocabulary.labels)}"
        )
    return replace(table, labels=vocabulary.labels)


def run_table(run: Run) -> ImageTable:
    """The table that the run stored, its images read from the stored paths.

    Raises:
        ImagesGoneError: The run has no table of its images.
    """
    if not run.table_file.is_file():
        raise ImagesGoneError(f"The run has not stored which images it used ({run.table_file} is missing).")
    frame, meta = load_saved_table(run.table_file)
    table = ImageTable(frame, tuple(meta["labels"]), meta["task"], FileStore(), tuple(meta["groups"]))
    return with_value_range(table, meta.get("value_range"))
