"""Splits are stratified, seeded, never part a group, and leave what is given as it is."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tables import labels_of, table_of

from finetune.data.splits import make_splits
from finetune.data.table import ImageTable
from finetune.errors import ConfigError, DataError

SHARES = st.tuples(st.floats(0.05, 0.45), st.floats(0.05, 0.45))
CLASS_SIZES = st.lists(st.integers(2, 40), min_size=2, max_size=12)


def splits_of(table: ImageTable) -> list[str]:
    found: list[str] = table.frame["split"].tolist()
    return found


@given(CLASS_SIZES, SHARES, st.integers(0, 9))
def test_each_split_is_within_one_image_of_its_proportion(
    sizes: list[int], shares: tuple[float, float], seed: int
) -> None:
    val, test = shares
    assume(min(val, test) * sum(sizes) >= 1 and min(sizes) * (1 - val - test) >= 1)
    table = make_splits(table_of(labels_of(sizes)), val=val, test=test, seed=seed)
    counts, totals = table.counts(), table.sizes()
    for split, share in (("val", val), ("test", test)):
        assert abs(totals[split] - share * sum(sizes)) <= 1
        for number, size in enumerate(sizes):
            assert abs(counts[split][f"class {number}"] - share * size) <= 1


@given(CLASS_SIZES, SHARES, st.integers(0, 9))
def test_every_image_has_one_split_and_every_class_is_learnt(
    sizes: list[int], shares: tuple[float, float], seed: int
) -> None:
    assume(min(shares) * sum(sizes) >= 3)
    table = make_splits(table_of(labels_of(sizes)), val=shares[0], test=shares[1], seed=seed)
    rows = [table.rows(split) for split in ("train", "val", "test")]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(table)))
    assert all(table.counts()["train"].values())


@given(CLASS_SIZES, st.integers(0, 9), st.randoms())
def test_the_order_of_rows_changes_nothing(sizes: list[int], seed: int, random: Any) -> None:
    assume(sum(sizes) >= 20)
    table = table_of(labels_of(sizes), groups=[f"p{number // 2}" for number in range(sum(sizes))])
    order = list(range(len(table)))
    random.shuffle(order)
    shuffled = replace(table, frame=table.frame.iloc[order].reset_index(drop=True))
    for group in (None, "patient"):
        one = make_splits(table, val=0.2, test=0.2, seed=seed, group=group).frame
        other = make_splits(shuffled, val=0.2, test=0.2, seed=seed, group=group).frame
        assert dict(zip(one["id"], one["split"], strict=True)) == dict(zip(other["id"], other["split"], strict=True))


def test_the_seed_decides() -> None:
    table = table_of(labels_of([20, 20, 20]))
    made = [splits_of(make_splits(table, val=0.2, test=0.2, seed=seed)) for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from("abc")), min_size=30, max_size=60), st.integers(0, 9))
def test_no_group_stands_on_two_sides(groups: list[tuple[int, str]], seed: int) -> None:
    labels = [label for size, label in groups for _ in range(size)]
    names = [f"p{number}" for number, (size, _) in enumerate(groups) for _ in range(size)]
    frequency = Counter(label for _, label in groups)
    assume(min(frequency.values()) >= 5 and len(frequency) > 1)
    table = make_splits(table_of(labels, groups=names), val=0.2, test=0.2, seed=seed, group="patient")
    assert table.frame.groupby("patient")["split"].nunique().max() == 1
    for split in ("val", "test"):
        assert abs(table.sizes()[split] - 0.2 * len(labels)) <= 9
        assert all(table.counts()[split].values())


def test_a_large_group_of_one_class_takes_nothing_from_another() -> None:
    labels = ["a"] * 24 + ["b"] * 5 + ["c"] * 5 + ["a"] * 4
    names = [f"p{number}" for number in range(34)] + ["large"] * 4
    for seed in range(50):
        table = make_splits(table_of(labels, groups=names), val=0.2, test=0.2, seed=seed, group="patient")
        assert all(table.counts()["val"].values())
        assert all(table.counts()["test"].values())


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=3), min_size=30, max_size=60), st.integers(0, 9))
def test_no_label_loses_its_last_training_image(lists: list[list[str]], seed: int) -> None:
    labels = [tuple(sorted(set(names))) for names in lists]
    assume(any(labels))
    table = make_splits(table_of(labels), val=0.3, test=0.3, seed=seed)
    assert all(table.counts()["train"].values())


@settings(deadline=None)
@given(st.integers(0, 99))
def test_mixed_groups_leave_every_class_in_train(seed: int) -> None:
    # class b is only in three of the groups
    labels = ["a", "a", "c"] * 20 + ["a", "b", "c"] * 3
    names = [f"p{number // 3}" for number in range(len(labels))]
    table = make_splits(table_of(labels, groups=names), val=0.3, test=0.3, seed=seed, group="patient")
    assert all(table.counts()["train"].values())


def test_images_without_a_group_stand_alone() -> None:
    names = [None if number % 2 else "p" for number in range(40)]
    table = make_splits(table_of(["a", "b"] * 20, groups=names), val=0.2, test=0.2, seed=0, group="patient")
    assert set(table.frame.loc[[number for number in range(40) if number % 2], "split"]) == {"train", "val", "test"}


def test_several_labels_are_stratified_by_the_rarest() -> None:
    labels = [("common", "rare") if number < 20 else ("common",) for number in range(200)]
    table = make_splits(table_of(labels), val=0.2, test=0.2, seed=0)
    assert table.counts()["test"] == {"common": 40, "rare": 4}
    assert table.counts()["val"] == {"common": 40, "rare": 4}


@given(st.lists(st.sampled_from(["train", "val", "test"]), min_size=3), st.integers(0, 9))
def test_given_splits_are_kept_when_none_is_missing(splits: list[str], seed: int) -> None:
    given_splits = [*splits, "train", "train", "val", "test"]
    table = table_of([*(["a"] * len(splits)), "a", "b", "b", "b"], [*splits, "train", "train", "val", "test"])
    assert splits_of(make_splits(table, val=0.2, test=0.2, seed=seed)) == given_splits


@pytest.mark.parametrize("missing", ["val", "test"])
def test_only_the_missing_split_is_made_and_from_train(missing: str) -> None:
    there = "test" if missing == "val" else "val"
    before = ["train"] * 60 + [there] * 40
    table = make_splits(table_of(["a", "b"] * 50, before), val=0.2, test=0.2, seed=0)
    after = splits_of(table)
    assert after[60:] == before[60:]
    assert Counter(after[:60]) == {"train": 48, missing: 12}
    assert table.counts()[missing] == {"a": 6, "b": 6}


def test_images_without_a_split_are_divided_and_the_others_stay() -> None:
    before = ["train"] * 20 + [None] * 60 + ["test"] * 20
    after = splits_of(make_splits(table_of(["a", "b"] * 50, before), val=0.25, test=0.25, seed=0))
    assert after[:20] == before[:20] and after[80:] == before[80:]
    assert Counter(after[20:80]) == {"train": 40, "val": 20}


def test_too_few_images_without_a_split_are_helped_out_by_train() -> None:
    before = ["train"] * 90 + [None] * 4 + ["test"] * 6
    table = make_splits(table_of(["a", "b"] * 50, before), val=0.25, test=0.25, seed=0)
    assert table.sizes() == {"train": 70, "val": 24, "test": 6}


def test_images_without_a_split_are_train_where_no_split_is_missing() -> None:
    before = ["train", "val", "test", None, None, "train"]
    after = splits_of(make_splits(table_of(["a", "b"] * 3, before), val=0.25, test=0.25, seed=0))
    assert after == ["train", "val", "test", "train", "train", "train"]


def test_images_without_a_split_join_their_group() -> None:
    before = ["test", None, "train", None] + [None] * 36
    names = ["p1", "p1", "p2", "p2"] + [f"q{number // 2}" for number in range(36)]
    table = table_of(["a", "b"] * 20, before, names)
    after = splits_of(make_splits(table, val=0.25, test=0.25, seed=0, group="patient"))
    assert after[:4] == ["test", "test", "train", "train"]


def test_given_splits_that_part_a_group_are_an_error() -> None:
    table = table_of(["a", "b"] * 4, ["train", "test"] * 4, ["p1", "p1", "p2", "p3"] * 2)
    with pytest.raises(DataError, match=r"1 groups of 'patient' .* \(first: p1, in test and train\)"):
        make_splits(table, val=0.2, test=0.2, seed=0, group="patient")


def test_classes_of_three_images_are_each_in_train_and_most_are_measured() -> None:
    table = make_splits(table_of(labels_of([3] * 20)), val=0.15, test=0.15, seed=0)
    assert table.sizes() == {"train": 42, "val": 9, "test": 9}
    assert max(table.counts()["test"].values()) == 1
    held_out = Counter(label for split in ("val", "test") for label, n in table.counts()[split].items() if n)
    assert len(held_out) >= 18


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [[2, 2], [3, 3], [2, 3], [2] * 10])
def test_very_small_classes_still_make_three_splits(sizes: list[int], seed: int) -> None:
    table = make_splits(table_of(labels_of(sizes)), val=0.15, test=0.15, seed=seed)
    assert all(table.sizes().values()) and all(table.counts()["train"].values())


def test_classes_that_a_split_lacks_are_named(caplog: pytest.LogCaptureFixture) -> None:
    make_splits(table_of(labels_of([2] * 10)), val=0.15, test=0.15, seed=0)
    assert "of 10 classes have no val image (first: " in caplog.text
    assert "their test scores are not measured" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": 0.0}, r"The val split is empty \(train: 34, val: 0, test: 6\). Raise data.splits.val"),
        ({"test": 0}, r"The test split is empty .* Raise data.splits.test"),
    ],
)
def test_a_share_of_nothing_is_an_error_unless_the_split_is_given(options: dict[str, float], message: str) -> None:
    shares = {"val": 0.15, "test": 0.15, **options}
    with pytest.raises(DataError, match=message):
        make_splits(table_of(["a", "b"] * 20), seed=0, **shares)
    there = next(iter(options))
    table = table_of(["a", "b"] * 20, [there] * 4 + [None] * 36)
    assert make_splits(table, seed=0, **shares).sizes()[there] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": 1.0}, "data.splits.val=1.0 is not a share"),
        ({"test": -0.1}, "data.splits.test=-0.1 is not a share"),
        ({"val": "much"}, "data.splits.val=much is not a share"),
        ({"val": 0.5, "test": 0.5}, "Their sum must be below 1"),
        ({"group": "patinet"}, "data.splits.group=patinet is not a group column .* Did you mean 'patient'"),
    ],
)
def test_settings_that_make_no_sense_say_what_to_type(options: dict[str, Any], message: str) -> None:
    table = table_of(["a", "b"] * 20, groups=["p"] * 40)
    with pytest.raises(ConfigError, match=message):
        make_splits(table, **{"val": 0.2, "test": 0.2, "seed": 0, **options})


def test_one_group_of_all_images_is_an_error() -> None:
    table = table_of(["a", "b"] * 20, groups=["p"] * 40)
    with pytest.raises(DataError, match="split is empty .*of more groups"):
        make_splits(table, val=0.2, test=0.2, seed=0, group="patient")
