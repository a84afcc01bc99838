"""The folds of a cross-validation: which images are held out and which are learnt from, whatever the order of rows."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetune.config.settings.data_groups import FoldSettings, SplitSettings
from finetune.data.fold_assignment import assign_folds
from finetune.data.splits import make_splits
from finetune.data.table import ImageTable, object_column
from finetune.errors import ConfigError, DataError, nearest

POOLED = ("train", "val")  # the splits that folds are made of
_TRIES = 100  # draws of a bootstrap before a class is found to be too small for it


@dataclass(frozen=True)
class Fold:
    """A member of a cross-validation.

    Attributes:
        held: (N,) bool: the images that it is tested on.
        counts: (N,) int64: how often each image is among those it learns from; 0 for those held out.
    """

    held: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.int64]


def crossval_pool(table: ImageTable) -> ImageTable:
    """Return the images that are cross-validated: those of a table that is split, without its test split."""
    rows = np.flatnonzero(table.frame["split"].isin(POOLED).to_numpy())
    return replace(table, frame=table.frame.iloc[rows].reset_index(drop=True))


def make_folds(pool: ImageTable, settings: FoldSettings, group: str | None = None) -> list[Fold]:
    """Return the folds of a pool of images, repeat after repeat.

    Args:
        pool: The images; their order does not matter.
        settings: How they are dealt out.
        group: Column whose values stay together; None for none.

    Raises:
        ConfigError: The group column is missing, or there are fewer images or groups than folds.
        DataError: A class is too small for a bootstrap.
    """
    values = check_group(pool, settings, group)
    order = np.argsort(pool.frame["id"].to_numpy(object), kind="stable")
    units = None if values is None else values[order]
    number = len(pool) if units is None else len(np.unique(units))
    least = 2 if settings.kind in ("leave_one_out", "bootstrap") else settings.folds
    if number < least:
        what = "images" if group is None else f"groups of '{group}'"
        raise ConfigError(f"There are {number} {what} for {least} folds. Set cv.folds={max(2, number)} or less.")
    if settings.kind == "bootstrap":
        drawn = [_bootstrap(pool, order, units, settings.seed, member) for member in range(settings.folds)]
        return [Fold(counts == 0, counts) for counts in drawn]
    places = np.empty(len(pool), np.int64)
    found = []
    for repeat in range(settings.repeats):
        places[order] = folds_of(strata(pool)[order], units, settings, settings.seed + repeat)
        found += [Fold(places == fold, (places != fold).astype(np.int64)) for fold in range(places.max() + 1)]
    return found


def check_group(pool: ImageTable, settings: FoldSettings, group: str | None) -> npt.NDArray[np.int64] | None:
    """Return a number for the group of each image (N,); an image without one stands alone. None without groups.

    Raises:
        ConfigError: The column is not there, or cv=grouped without one.
    """
    if group is None:
        if settings.kind == "grouped":
            raise ConfigError(
                "cv=grouped needs to know what stays together. Type data.splits.group=COLUMN, with data=csv "
                "data.group_columns=[COLUMN]."
            )
        return None
    if group not in pool.groups:
        there = f"there is: {', '.join(pool.groups)}" if pool.groups else "there is none"
        raise ConfigError(f"data.splits.group={group} is not a group column ({there}).{nearest(group, pool.groups)}")
    names = [
        f"group {value}" if isinstance(value, str) else f"image {name}"
        for value, name in zip(pool.frame[group].tolist(), pool.frame["id"].tolist(), strict=True)
    ]
    return np.asarray(pd.factorize(np.array(names, dtype=object), sort=True)[0], np.int64)


def strata(pool: ImageTable) -> npt.NDArray[np.int64]:
    """Return the class of each image (N,); of several labels the one that the fewest images have, -1 without any."""
    targets = pool.targets()
    if targets.ndim == 1:
        return np.asarray(targets, np.int64)
    rarity = np.where(targets > 0, targets.sum(axis=0), np.inf)
    return np.where(targets.any(axis=1), rarity.argmin(axis=1), -1).astype(np.int64)


def folds_of(
    classes: npt.NDArray[np.int64], units: npt.NDArray[np.int64] | None, settings: FoldSettings, seed: int
) -> npt.NDArray[np.int64]:
    """Return the fold (N,) in which each image is held out.

    Args:
        classes: Of each image (N,), by which images are spread over the folds.
        units: Group of each image (N,); None where each stands alone.
        settings: The kind and the number of folds.
        seed: Seeds the order.

    Raises:
        ConfigError: No class has as many images as there are folds.
    """
    if settings.kind == "leave_one_out":
        return np.arange(len(classes)) if units is None else units
    counts = np.bincount(classes - classes.min())
    if settings.kind != "kfold" and counts.max() < settings.folds:
        raise ConfigError(
            f"No class has as many as {settings.folds} images, so none can be in each fold. Set cv.folds="
            f"{max(2, int(counts.max()))}, or cv=kfold, or cv=leave_one_out."
        )
    return assign_folds(classes, units, settings.folds, seed, stratified=settings.kind != "kfold")


def _bootstrap(
    pool: ImageTable, order: npt.NDArray[np.int64], units: npt.NDArray[np.int64] | None, seed: int, member: int
) -> npt.NDArray[np.int64]:
    """Return how often each image (N,) is drawn, with replacement, as many as there are, or whole groups of them.

    Each class is drawn at least twice, so that one image can train and one can choose the epoch, and some image is
    left out.

    Raises:
        DataError: That cannot be reached.
    """
    random = np.random.default_rng([seed, member])
    units = np.arange(len(order)) if units is None else units
    number = int(units.max()) + 1
    has = np.stack([np.array([label in names for names in pool.names()]) for label in pool.labels])
    for _ in range(_TRIES):
        drawn = np.bincount(random.integers(number, size=number), minlength=number)
        counts = np.empty(len(order), np.int64)
        counts[order] = drawn[units]
        seen = (has & (counts > 0)).sum(axis=1)
        if (counts == 0).any() and (seen >= np.minimum(2, has.sum(axis=1))).all():
            return counts
    rarest = pool.labels[int(has.sum(axis=1).argmin())]
    raise DataError(f"The class '{rarest}' is too small to be in every resample. Use cv=stratified, or add images.")


def with_fold(pool: ImageTable, fold: Fold, *, val: float, seed: int, group: str | None = None) -> ImageTable:
    """Return the images of a fold: test are those held out; val, on which the epoch is chosen, is a share of the rest.

    An image that a bootstrap has drawn more than once is in train as often, under further ids; none of those of val
    is in train too.

    Args:
        pool: All images of the cross-validation.
        fold: Which of them are held out.
        val: Share of the others that is the val split.
        seed: Seeds the choice of val.
        group: Column whose values stay together.

    Raises:
        DataError: A class has no training image left, or val is empty.
    """
    kept = fold.held | (fold.counts > 0)
    splits: list[str | None] = ["test" if held else None for held in fold.held[kept].tolist()]
    frame = pool.frame.loc[kept].reset_index(drop=True)
    sub = replace(pool, frame=frame.assign(split=object_column(splits)))
    done = make_splits(sub, val=val, test=0.0, seed=seed, group=group, quiet=True)
    return with_bootstrap_copies(done, fold.counts[kept])


def with_bootstrap_copies(table: ImageTable, counts: npt.NDArray[np.int64]) -> ImageTable:
    """Return a table whose training images are there as often as they were drawn."""
    train = (table.frame["split"] == "train").to_numpy()
    again = np.where(train, counts - 1, 0).clip(min=0)
    if not again.any():
        return table
    rows = np.repeat(np.arange(len(table)), again)
    copies = table.frame.iloc[rows].reset_index(drop=True)
    number = np.concatenate([np.arange(2, count + 2) for count in again[again > 0]])
    names = [f"{name}#{copy}" for name, copy in zip(copies["id"].tolist(), number.tolist(), strict=True)]
    copies = copies.assign(id=object_column(names))
    return replace(table, frame=pd.concat([table.frame, copies], ignore_index=True))


def split_table(table: ImageTable, splits: SplitSettings) -> ImageTable:
    """Return the images of a run, all of them in a split; those of a fold are divided anew, without the test split.

    Raises:
        ConfigError: There is no such fold, or as `make_splits` says.
        DataError: As `make_splits` says.
    """
    if splits.fold is None:
        return make_splits(table, val=splits.val, test=splits.test, seed=splits.seed, group=splits.group)
    index, pool = splits.fold.index, crossval_pool(without_fold(table, splits))
    folds = make_folds(pool, splits.fold, splits.group)
    if index >= len(folds):
        raise ConfigError(f"data.splits.fold has index {index}; there are the folds 0 to {len(folds) - 1}.")
    return with_fold(pool, folds[index], val=splits.val, seed=splits.seed, group=splits.group)


def without_fold(table: ImageTable, splits: SplitSettings) -> ImageTable:
    """Return the images that a cross-validation begins with: split as always, but a test split is not needed."""
    return make_splits(
        table, val=splits.val, test=splits.test, seed=splits.seed, group=splits.group, needed=("train",), quiet=True
    )
