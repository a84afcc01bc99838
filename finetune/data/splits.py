"""Train, val and test splits where a data set lacks them: stratified, seeded, and with no group on two sides."""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from finetune.data.sources.unlabelled import refuse_unlabelled
from finetune.data.table import SPLITS, ImageTable, object_column
from finetune.errors import ConfigError, DataError, nearest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitUnit:
    """Images that stay together.

    Attributes:
        name: The image's id or the group's value.
        rows: Their rows.
        labels: How often each label occurs on them.
        stratum: The rarest of their labels, for which the unit counts.
    """

    name: str
    rows: tuple[int, ...]
    labels: Mapping[str, int]
    stratum: str


def make_splits(
    table: ImageTable,
    *,
    val: float,
    test: float,
    seed: int,
    group: str | None = None,
    needed: Sequence[str] = SPLITS,
    quiet: bool = False,
) -> ImageTable:
    """Return the table with every image in train, val or test.

    A given val or test split is kept as it is. A missing one is made from the images without a split; where these are
    too few for it, or there are none, from those of train as well. What then has no split is train. An image without
    a split whose group stands in a given one joins it. The result depends on ids, labels, groups and the seed, not
    on the order of rows.

    Args:
        table: The images.
        val: Share for validation of the images that are neither in a given val nor in a given test split.
        test: Share for the test of the same images.
        seed: Seeds the division.
        group: Column whose values must not stand on two sides; None for none.
        needed: Splits that must not be empty.
        quiet: Whether nothing is said of classes that a split lacks.

    Raises:
        ConfigError: The shares or the group column make no sense.
        DataError: A split would be empty, a class would have no training image, or given splits part a group.
    """
    refuse_unlabelled(table)
    _check_settings(table, val, test, group)
    check_class_sizes(table)
    splits = joined_groups(table, group)
    wanted = {name: share for name, share in (("test", test), ("val", val)) if name not in splits and share > 0}
    loose = [row for row, split in enumerate(splits) if split is None]
    free = [row for row, split in enumerate(splits) if split in (None, "train")]
    few = len(loose) < sum(wanted.values()) * len(free) + 1
    units = _units_of(table, free if few else loose, group)
    shares = {name: share if few else share * len(free) / len(loose) for name, share in wanted.items()}
    taken = assign_splits(units, shares, seed, present=_label_counts(table, free))
    result = [taken.get(row, split or "train") for row, split in enumerate(splits)]
    done = replace(table, frame=table.frame.assign(split=object_column(result).set_axis(table.frame.index)))
    check_splits(done, needed, quiet=quiet)
    return done


def _check_settings(table: ImageTable, val: float, test: float, group: str | None) -> None:
    """Check shares and group column.

    Raises:
        ConfigError: They make no sense.
    """
    for name, share in (("val", val), ("test", test)):
        if not isinstance(share, int | float) or not 0 <= share < 1:
            raise ConfigError(
                f"data.splits.{name}={share} is not a share. Use a number from 0 to below 1, such as 0.15."
            )
    if val + test >= 1:
        raise ConfigError(
            f"data.splits.val={val} and data.splits.test={test} leave nothing to train on. Their sum must be below 1."
        )
    if group is not None and group not in table.groups:
        there = f"there is: {', '.join(table.groups)}" if table.groups else "there is none"
        raise ConfigError(
            f"data.splits.group={group} is not a group column ({there}). "
            f"Name the columns of a table: data=csv data.group_columns=[{group}].{nearest(group, table.groups)}"
        )


def joined_groups(table: ImageTable, group: str | None) -> list[str | None]:
    """Return the given splits, with images that have none in that of their group.

    Raises:
        DataError: A group stands in more than one given split.
    """
    splits = [split if isinstance(split, str) else None for split in table.frame["split"].tolist()]
    if group is None:
        return splits
    values = table.frame[group].tolist()
    sides: dict[str, set[str]] = {}
    for value, split in zip(values, splits, strict=True):
        if split is not None and isinstance(value, str):
            sides.setdefault(value, set()).add(split)
    crossing = [value for value, found in sides.items() if len(found) > 1]
    if crossing:
        raise DataError(
            f"{len(crossing):,} groups of '{group}' stand in more than one given split (first: {crossing[0]}, in "
            f"{' and '.join(sorted(sides[crossing[0]]))}). Move each to one side."
        )
    side = {value: next(iter(found)) for value, found in sides.items()}
    return [split or side.get(value) for value, split in zip(values, splits, strict=True)]


def _units_of(table: ImageTable, pool: Collection[int], group: str | None) -> list[SplitUnit]:
    """Return the images of a pool as units: one for each group, and one for each image without one."""
    names, ids = table.names(), table.frame["id"].tolist()
    values = table.frame[group].tolist() if group else [None] * len(table)
    members: dict[str, list[int]] = {}
    for row in pool:
        value = values[row]
        members.setdefault(f"group {value}" if isinstance(value, str) else f"image {ids[row]}", []).append(row)
    frequency = _label_counts(table, range(len(table)))
    units = []
    for name, rows in sorted(members.items()):
        labels = Counter(label for row in rows for label in names[row])
        stratum = min(labels, key=lambda label: (frequency[label], label), default="")
        units.append(SplitUnit(name, tuple(rows), labels, stratum))
    return units


def _label_counts(table: ImageTable, rows: Collection[int]) -> Counter[str]:
    """Return how many of the images have each label."""
    names = table.names()
    return Counter(label for row in rows for label in names[row])


def assign_splits(
    units: Collection[SplitUnit], shares: Mapping[str, float], seed: int, *, present: Counter[str]
) -> dict[int, str]:
    """Return the split of each row that leaves train.

    The strata are gone through one after another, and so many images are taken from each that the number taken so far
    is the share of all seen so far, rounded. Hence a split is as large as it should be and, where units are single
    images, differs from its share of each stratum by less than one image. The roundings of two splits are shifted, so
    that of classes with a few images as many as possible are in one of them. A stratum that large groups of another
    left with nothing of a split gets its smallest unit there, if its share is an image. No label loses its last
    training image.

    Args:
        units: What is divided.
        shares: Of all images, for each split.
        seed: Seeds the order of strata and units.
        present: How many images each label has now that could train.
    """
    strata: dict[str, list[SplitUnit]] = {}
    for unit in units:
        strata.setdefault(unit.stratum, []).append(unit)
    left = Counter(present)
    taken: dict[int, str] = {}
    seen, given = 0, dict.fromkeys(shares, 0)

    def spare(unit: SplitUnit) -> bool:
        return unit.rows[0] not in taken and all(left[label] > number for label, number in unit.labels.items())

    def take(unit: SplitUnit, split: str) -> None:
        given[split] += len(unit.rows)
        left.subtract(unit.labels)
        taken.update(dict.fromkeys(unit.rows, split))

    for stratum in sorted(strata, key=lambda label: shuffled_key(seed, label)):
        members = sorted(strata[stratum], key=lambda unit: shuffled_key(seed, unit.name))
        images = sum(len(unit.rows) for unit in members)
        largest = max(len(unit.rows) for unit in members)
        seen += images
        before = dict(given)
        most = {split: given[split] + math.ceil(share * images) + largest - 1 for split, share in shares.items()}
        for unit in members:
            size = len(unit.rows)
            owed = {split: round_share(split, share * seen) - given[split] for split, share in shares.items()}
            open_to = [split for split in shares if owed[split] >= size / 2 and given[split] + size <= most[split]]
            if open_to and spare(unit):
                take(unit, max(open_to, key=lambda name: owed[name]))
        for split, share in shares.items():
            spared = [unit for unit in members if spare(unit)]
            if spared and given[split] == before[split] and share * images >= 1 - 1e-9:
                take(min(spared, key=lambda unit: len(unit.rows)), split)
    return taken


def round_share(split: str, number: float) -> int:
    """Return a whole number near `number`: the nearest for the test split, the next above for another."""
    return math.floor(number + 0.5) if split == "test" else math.ceil(number - 1e-9)


def shuffled_key(seed: int, name: str) -> bytes:
    """Return what to sort names by for an order that depends on the seed and on nothing else."""
    return hashlib.blake2b(name.encode(), key=str(seed).encode()[:64], digest_size=16).digest()


def check_class_sizes(table: ImageTable) -> None:
    """Check that each class has at least two images: one to learn from, one to be judged by.

    Raises:
        DataError: A class has fewer.
    """
    counts = _label_counts(table, range(len(table)))
    empty = [label for label in table.labels if not counts[label]]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(table.labels)} classes have no image that can be read (first: '{empty[0]}'). "
            "Add images, or remove the class."
        )
    single = [label for label in table.labels if counts[label] < 2]
    if single and table.task == "multiclass":
        raise DataError(
            f"{len(single)} of {len(table.labels)} classes have fewer than 2 images (first: '{single[0]}'): one cannot "
            "both train and test on it. Add images, or remove the class."
        )


def check_splits(table: ImageTable, needed: Sequence[str] = SPLITS, *, quiet: bool = False) -> None:
    """Check that no needed split is empty and every class can be learnt; warn of what cannot be measured.

    Raises:
        DataError: A split is empty, or a class has no training image.
    """
    sizes, counts = table.sizes(), table.counts()
    empty = [split for split in needed if not sizes[split]]
    if empty:
        what = "Give images of each class to train" if empty[0] == "train" else f"Raise data.splits.{empty[0]}"
        raise DataError(
            f"The {empty[0]} split is empty ({', '.join(f'{name}: {n:,}' for name, n in sizes.items())}). "
            f"{what}, or add images (of more groups, where they are grouped)."
        )
    unlearnt = [label for label in table.labels if not counts["train"][label]]
    if unlearnt:
        raise DataError(
            f"{len(unlearnt)} of {len(table.labels)} classes have no training image (first: '{unlearnt[0]}'). Move "
            "some of its images to train, or remove the class."
        )
    for split in () if quiet else ("val", "test"):
        absent = [label for label in table.labels if not counts[split][label]]
        if absent and sizes[split]:
            log.warning("%d of %d classes have no %s image (first: '%s'): their %s scores are not measured.",
                        len(absent), len(table.labels), split, absent[0], split)  # fmt: skip
