"""Epochs that bring classes to the same size draw what they say, the same over any number of ranks."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from configured import settings_for
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight
from tiny import tiny_table

from finetune.config.settings.training_groups import Augment
from finetune.data.datamodule import ImageData
from finetune.data.resampling import Balance, training_strata
from finetune.data.sampling import Draw, Resampling, TrainBatches
from finetune.data.table import ImageTable, object_column
from finetune.data.transforms import InputSpec
from finetune.errors import DataError

SPEC = InputSpec(3, 16, 16, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0)
SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=5)


def cells_of(sizes: list[int]) -> np.ndarray:
    """Return shuffled classes of given sizes, under numbers with gaps."""
    return np.random.default_rng(0).permutation(np.repeat(3 * np.arange(len(sizes)) + 1, sizes))


def epoch_of(sizes: list[int], kind: str, *, ranks: int = 1, epoch: int = 0) -> list[list[Draw]]:
    """Return the draws of every rank."""
    cells = cells_of(sizes)
    found = []
    for rank in range(ranks):
        batches = TrainBatches(np.arange(len(cells)), 4, seed=0, rank=rank, world_size=ranks,
                               resampling=Resampling(cells, kind))  # type: ignore[arg-type] # fmt: skip
        batches.set_epoch(epoch)
        found.append([draw for batch in batches for draw in batch])
    return found


@given(SIZES)
def test_oversampling_draws_every_class_as_often_as_the_largest(sizes: list[int]) -> None:
    cells = cells_of(sizes)
    (positions, repeats) = Resampling(cells, "oversample").draw(np.random.default_rng(1))
    assert set(Counter(cells[positions].tolist()).values()) == {max(sizes)}
    times = Counter(positions.tolist())
    for cell, size in zip(np.unique(cells), sizes, strict=True):
        own = {times[row] for row in np.flatnonzero(cells == cell).tolist()}
        assert own <= {max(sizes) // size, -(-max(sizes) // size)}
    assert repeats.sum() == len(positions) - len(cells), "each image is drawn once that is no repeat"
    assert Counter(positions[~repeats].tolist()) == Counter(range(len(cells)))


@given(SIZES)
def test_undersampling_draws_every_class_as_often_as_the_smallest_and_nothing_twice(sizes: list[int]) -> None:
    cells = cells_of(sizes)
    (positions, repeats) = Resampling(cells, "undersample").draw(np.random.default_rng(1))
    assert set(Counter(cells[positions].tolist()).values()) == {min(sizes)}
    assert len(set(positions.tolist())) == len(positions) and not repeats.any()


def test_undersampling_draws_others_in_each_epoch() -> None:
    epochs = [{draw.row for draw in epoch_of([20, 4], "undersample", epoch=epoch)[0]} for epoch in range(30)]
    assert epochs[0] != epochs[1]
    assert set.union(*epochs) == set(range(24))
    assert epochs[3] == {draw.row for draw in epoch_of([20, 4], "undersample", epoch=3)[0]}


@pytest.mark.parametrize("kind", ["oversample", "undersample"])
def test_ranks_share_the_plan_of_one(kind: str) -> None:
    sizes = [24, 12, 8]
    alone = epoch_of(sizes, kind, epoch=2)[0]
    first, second = epoch_of(sizes, kind, ranks=2, epoch=2)
    assert [draw for pair in zip(first, second, strict=True) for draw in pair] == alone


def test_fewer_draws_than_ranks_is_an_error() -> None:
    with pytest.raises(DataError, match="2 training images cannot be shared among 3 devices"):
        epoch_of([9, 1], "undersample", ranks=3)


@pytest.mark.parametrize("policy", ["oversample", "undersample", "augment_minority"])
def test_what_an_image_counts_on_average_is_scikit_learns_balance(policy: str) -> None:
    table = unbalanced()
    expected = compute_sample_weight("balanced", table.targets()[table.rows("train")])
    np.testing.assert_allclose(Balance(policy).weights(table), expected / expected.mean())


def unbalanced() -> ImageTable:
    """Return digits: 20 of one class and 5 of another in training."""
    table = tiny_table(train=25, val=4, test=4)
    labels = ["many"] * 20 + ["few"] * 5 + ["many", "few"] * 4
    frame = table.frame.assign(label=object_column(labels), site=object_column(["a", "b", "b"] * 11))
    return replace(table, frame=frame, labels=("few", "many"), groups=("site",))


def test_cells_are_classes_of_groups() -> None:
    table = unbalanced()
    rows = table.frame.iloc[table.rows("train")]
    cells = training_strata(table, ("site",))
    names = [f"{label} {site}" for label, site in zip(rows["label"], rows["site"], strict=True)]
    assert len(set(cells)) == 4 == len(set(zip(cells, names, strict=True)))


def test_an_image_with_several_labels_counts_for_the_rarest() -> None:
    table = tiny_table(train=5, val=1, test=1)
    labels = [("a",), ("a", "b"), ("a", "c"), ("a", "b", "c"), (), ("a",), ("b",)]
    frame = table.frame.assign(label=object_column(labels))
    table = replace(table, frame=frame, labels=("a", "b", "c"), task="multilabel")
    assert training_strata(table, ())[[0, 4]].tolist() == [0, 3]
    assert set(training_strata(table, ())[1:4]) <= {1, 2}


def test_repeats_alone_are_varied_otherwise() -> None:
    table, balance = unbalanced(), Balance("augment_minority")
    light, strong = settings_for(Augment, horizontal_flip=0.5), settings_for(Augment, horizontal_flip=0.5, erase=1.0)
    other = ImageData(table, SPEC, strong)
    rows = table.rows("train")
    batches = {
        name: next(iter(ImageData(table, SPEC, light, batch_size=40, seed=3, **options).draws(
            balance.batches(table, rows, 40, seed=3), augmented=True)))
        for name, options in {"alike": {}, "varied": {"repeats": other}}.items()
    }  # fmt: skip
    _, repeats = balance.batches(table, rows, 40, seed=3).plan()
    changed = (batches["alike"]["image"] != batches["varied"]["image"]).flatten(1).any(1)
    assert torch.equal(changed, torch.from_numpy(repeats)) and int(changed.sum()) == 15
    few = table.labels.index("few")
    assert set(batches["varied"]["target"][changed].tolist()) == {few}
