"""Making the splits a data set lacks: stratified, seeded, and with no group on two sides.

It decides which image is used for what; given splits are never changed, and checks at the end say what follows from
classes that are too small.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from finetune.data.decoding import pd_object
from finetune.data.table import SPLITS, ImageTable
from finetune.errors import ConfigError, DataError, nearest

log = logging.getLogger(__name__)

# images that stay together, and the label they count for
Unit = tuple[list[int], str]


def make_splits(table: ImageTable, *, val: float, test: float, seed: int, group: str | None = None) -> ImageTable:
    """Return the table with every image in train, val or test.

    Images without a split are divided; a split that the data set brings is kept as it is, and only those it lacks are
    taken out of train. The result depends on ids, labels, groups and the seed, not on the order of rows.

    Args:
        table: The images.
        val: Share for validation of the images that are divided: those without a split, or else those of train.
        test: Likewise for the test.
        seed: Seeds the division.
        group: Column whose values must not stand on two sides; None for none.

    Raises:
        ConfigError: The shares or the group column make no sense.
        DataError: A split would be empty, or a class would have no training image.
    """
    check_shares(val, test)
    if group is not None and group not in table.groups:
        raise ConfigError(f"data.splits.group={group} is not a group column (there is: {', '.join(table.groups) or 'none; set data.group_columns'}).{nearest(group, table.groups)}")
    splits = [split if isinstance(split, str) else None for split in table.frame["split"]]
    check_class_sizes(table)
    given = {split for split in splits if split}
    loose = [row for row, split in enumerate(splits) if split is None]
    wanted = {name: share for name, share in (("test", test), ("val", val)) if name not in given and share > 0}
    pool = loose if loose and "train" not in given else [row for row, split in enumerate(splits) if split in (None, "train")]
    pool = pool or loose
    taken = divide(table, pool, wanted, seed, group) if pool else {}
    result = [taken.get(row, split or "train") for row, split in enumerate(splits)]
    done = replace(table, frame=table.frame.assign(split=pd_object(result)))
    check_splits(done, group)
    return done


def check_shares(val: float, test: float) -> None:
    """Check that the shares leave something to train on."""
    for name, share in (("val", val), ("test", test)):
        if not 0 <= share < 1:
            raise ConfigError(f"data.splits.{name}={share} is not a share. Use a number from 0 to below 1, such as 0.15.")
    if val + test >= 1:
        raise ConfigError(f"data.splits.val={val} and data.splits.test={test} leave nothing to train on. Their sum must be below 1.")


def units_of(table: ImageTable, pool: Sequence[int], group: str | None) -> list[Unit]:
    """Return the images that must stay together, each with the rarest of its labels."""
    frequency: Counter[str] = Counter()
    for label in table.frame["label"]:
        frequency.update((label,) if table.task == "multiclass" else label)
    members: dict[str, list[int]] = {}
    ids, labels = table.frame["id"].tolist(), table.frame["label"].tolist()
    values = table.frame[group].tolist() if group else ids
    for row in pool:
        alone = group is None or not isinstance(values[row], str)
        members.setdefault(f"image {ids[row]}" if alone else f"group {values[row]}", []).append(row)

    def rarest(rows: list[int]) -> str:
        names = [name for row in rows for name in ((labels[row],) if table.task == "multiclass" else labels[row])]
        return min(names, key=lambda name: (frequency[name], name), default="")

    return [(rows, rarest(rows)) for _, rows in sorted(members.items())]


def divide(table: ImageTable, pool: Sequence[int], wanted: dict[str, float], seed: int, group: str | None) -> dict[int, str]:
    """Return the split of each row that leaves train.

    Within each label the units are shuffled and dealt out by largest remainder, so that every split has the label in
    proportion; a label keeps at least one unit in train.
    """
    strata: dict[str, list[list[int]]] = {}
    for rows, label in units_of(table, pool, group):
        strata.setdefault(label, []).append(rows)
    owed = dict.fromkeys(wanted, 0.0)
    taken: dict[int, str] = {}
    for label, units in sorted(strata.items()):
        key = int.from_bytes(hashlib.blake2b(label.encode(), digest_size=8).digest(), "big")
        order = np.random.default_rng([seed, key]).permutation(len(units))
        left = [units[index] for index in order]
        images = sum(map(len, units))
        for split, share in wanted.items():
            owed[split] += images * share
            while len(left) > 1 and owed[split] >= 0.5 * len(left[-1]):
                rows = left.pop()
                owed[split] -= len(rows)
                taken.update(dict.fromkeys(rows, split))
    return taken


def check_class_sizes(table: ImageTable) -> None:
    """Check that each class has at least two images: one to learn from, one to be judged by."""
    counts: Counter[str] = Counter()
    for label in table.frame["label"]:
        counts.update((label,) if table.task == "multiclass" else label)
    for label in table.labels:
        if counts[label] == 0:
            raise DataError(f"The class '{label}' has no image (after unreadable ones were left out). Remove the class, or add images.")
    single = [label for label in table.labels if counts[label] < 2]
    if single and table.task == "multiclass":
        raise DataError(
            f"{len(single)} of {len(table.labels)} classes have fewer than 2 images (first: '{single[0]}'): one cannot both train "
            "and test on it. Add images, or remove the class."
        )


def check_splits(table: ImageTable, group: str | None) -> None:
    """Check that no split is empty and every class can be learnt; warn of what cannot be measured."""
    sizes = table.sizes()
    empty = [split for split in SPLITS if not sizes[split]]
    if empty:
        raise DataError(
            f"The {empty[0]} split is empty ({', '.join(f'{name}: {n:,}' for name, n in sizes.items())}). "
            f"Add images, or raise data.splits.{'val' if empty[0] == 'train' else empty[0]}."
        )
    counts = table.counts()
    for label in table.labels:
        if not counts["train"][label]:
            raise DataError(f"The class '{label}' has no training image. Move some of its images to train, or remove the class.")
    for split in ("val", "test"):
        absent = [label for label in table.labels if not counts[split][label]]
        if absent:
            log.warning("%d classes have no %s image (first: %s): their %s scores are not measured.", len(absent), split, absent[0], split)
    if group is not None:
        sides = table.frame.dropna(subset=[group]).groupby(group)["split"].nunique()
        crossing = sides[sides > 1]
        if len(crossing):
            raise DataError(f"{len(crossing)} groups of '{group}' stand in more than one given split (first: {crossing.index[0]}). Move each to one side.")
