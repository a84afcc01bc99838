"""Folds are disjoint and cover all images, keep groups together, and do not depend on the order of rows."""

import math
from dataclasses import replace

import numpy as np
import pytest
from configured import settings_for
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import labels_of, table_of

from finetune.config.settings.data_groups import FoldSettings, SplitSettings
from finetune.data.folds import crossval_pool, make_folds, split_table, with_fold
from finetune.data.splits import make_splits
from finetune.data.table import ImageTable
from finetune.errors import ConfigError, DataError

SIZES = st.lists(st.integers(6, 20), min_size=2, max_size=4)
FEW = settings(max_examples=25, deadline=None)


def ids_of(table: ImageTable, split: str) -> set[str]:
    return set(table.frame["id"].iloc[table.rows(split)])


@FEW
@given(SIZES, st.sampled_from(["kfold", "stratified", "repeated", "leave_one_out"]), st.integers(0, 5))
def test_folds_are_disjoint_and_cover(sizes: list[int], kind: str, seed: int) -> None:
    table = table_of(labels_of(sizes))
    repeats = 2 if kind == "repeated" else 1
    folds = make_folds(table, settings_for(FoldSettings, kind, 3, repeats, seed))  # type: ignore[arg-type]
    assert len(folds) == (len(table) if kind == "leave_one_out" else 3 * repeats)
    times = np.sum([fold.held for fold in folds], axis=0)
    assert (times == repeats).all()
    assert all(((fold.counts > 0) == ~fold.held).all() for fold in folds)


@FEW
@given(SIZES, st.integers(0, 5))
def test_stratified_folds_hold_each_class_within_one_image_of_its_share(sizes: list[int], seed: int) -> None:
    table = table_of(labels_of(sizes))
    for fold in make_folds(table, settings_for(FoldSettings, "stratified", 3, 1, seed)):
        held = np.bincount(table.targets()[fold.held], minlength=len(sizes))
        assert (np.abs(held - np.array(sizes) / 3) < 1).all()


@pytest.mark.parametrize("kind", ["kfold", "stratified", "grouped", "repeated", "leave_one_out", "bootstrap"])
def test_no_group_is_on_two_sides_of_any_fold(kind: str) -> None:
    labels = labels_of([20, 20])
    groups = [f"piece {number // 2}" for number in range(40)]
    table = table_of(labels, groups=groups)
    settings_ = settings_for(FoldSettings, kind, 4)  # type: ignore[arg-type]
    for fold in make_folds(table, settings_, "patient"):
        sub = with_fold(table, fold, val=0.2, seed=0, group="patient")
        sides = sub.frame.groupby("patient")["split"].nunique()
        assert (sides == 1).all()


@pytest.mark.parametrize("kind", ["kfold", "stratified", "leave_one_out", "bootstrap"])
def test_folds_do_not_depend_on_the_order_of_rows(kind: str) -> None:
    table = table_of(labels_of([9, 11]))
    turned = replace(table, frame=table.frame.iloc[::-1].reset_index(drop=True))
    for one, two in zip(
        *(make_folds(each, settings_for(FoldSettings, kind, 3)) for each in (table, turned)), strict=True
    ):  # type: ignore[arg-type]
        assert (one.held == two.held[::-1]).all() or kind == "leave_one_out"
        assert (one.counts == two.counts[::-1]).all() or kind == "leave_one_out"


def test_a_fold_learns_from_the_others_and_never_sees_the_test_split() -> None:
    table = table_of(labels_of([30, 30]))
    whole = make_splits(table, val=0.2, test=0.2, seed=1)
    seen: list[str] = []
    for index in range(3):
        fold = {"kind": "stratified", "folds": 3, "repeats": 1, "seed": 0, "index": index}
        found = split_table(table, settings_for(SplitSettings, val=0.2, test=0.2, seed=1, fold=fold))
        assert set(found.frame["id"]) == set(crossval_pool(whole).frame["id"])  # without the test split
        assert not ids_of(found, "test") & (ids_of(found, "train") | ids_of(found, "val"))
        assert len(ids_of(found, "val")) == math.ceil(0.2 * 32)
        seen += ids_of(found, "test")
    assert sorted(seen) == sorted(crossval_pool(whole).frame["id"])


def test_a_bootstrap_draws_as_many_images_as_there_are_and_tests_on_the_others() -> None:
    table = table_of(labels_of([30, 30]))
    for fold in make_folds(table, settings_for(FoldSettings, "bootstrap", 5)):
        assert fold.counts.sum() == 60
        found = with_fold(table, fold, val=0.2, seed=0)
        train = found.frame.iloc[found.rows("train")]
        times = {name: int(count) for name, count in zip(table.frame["id"], fold.counts, strict=True)}
        drawn = train["id"].str.partition("#")[0].value_counts()
        assert all(times[name] == count for name, count in drawn.items())
        assert train["id"].is_unique
        assert not set(drawn.index) & ids_of(found, "val")
        assert ids_of(found, "test") == set(table.frame["id"][fold.held])
    shares = [fold.held.mean() for fold in make_folds(table, settings_for(FoldSettings, "bootstrap", 200))]
    assert abs(float(np.mean(shares)) - (1 - 1 / 60) ** 60) < 0.01


def test_several_labels_are_spread_by_the_rarest() -> None:
    labels = [("a", "b") if number % 5 == 0 else ("a",) for number in range(30)]
    for fold in make_folds(table_of(labels), settings_for(FoldSettings, "stratified", 3)):
        assert sum(len(labels[row]) == 2 for row in np.flatnonzero(fold.held)) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "stratifed"}, "Did you mean 'stratified'"),
        ({"folds": 1}, "cv.folds=1 must be a whole number of 2"),
        ({"kind": "bootstrap", "repeats": 2}, "has no meaning with cv=bootstrap"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_for(FoldSettings, **options)


def test_what_cannot_be_divided_is_refused() -> None:
    table = table_of(labels_of([3, 3]))
    with pytest.raises(ConfigError, match="cv=grouped needs"):
        make_folds(table, settings_for(FoldSettings, "grouped"))
    with pytest.raises(ConfigError, match="6 images for 9 folds"):
        make_folds(table, settings_for(FoldSettings, "kfold", 9))
    with pytest.raises(ConfigError, match=r"Set cv.folds=3"):
        make_folds(table, settings_for(FoldSettings, "stratified", 5))
    with pytest.raises(ConfigError, match="is not a group column"):
        make_folds(table, settings_for(FoldSettings, "stratified", 2), "patient")
    with pytest.raises(ConfigError, match="folds 0 to 1"):
        fold = {"kind": "stratified", "folds": 2, "repeats": 1, "seed": 0, "index": 2}
        split_table(table, settings_for(SplitSettings, val=0.2, test=0.0, fold=fold))
    with pytest.raises(DataError, match="fewer than 2 images"):
        few = table_of(["a", "a", "b"])
        with_fold(few, make_folds(few, settings_for(FoldSettings, "leave_one_out"))[2], val=0.1, seed=0)
