"""Draws are pure functions of seed and epoch, the same over any number of ranks, and evaluation sees each row once."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.sampling import Draw, EvalBatches, TrainBatches
from finetune.errors import DataError

NUMBERS = st.integers(1, 80)
BATCH_SIZES = st.integers(1, 9)
RANKS = st.integers(1, 5)


def rows_of(number: int) -> np.ndarray:
    """Return row numbers with gaps, as those of a split have."""
    return np.arange(number, dtype=np.int64) * 3 + 5


def epoch_of(number: int, batch_size: int, ranks: int, *, seed: int = 0, epoch: int = 0) -> list[list[list[Draw]]]:
    """Return the batches of every rank."""
    samplers = [TrainBatches(rows_of(number), batch_size, seed=seed, rank=r, world_size=ranks) for r in range(ranks)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


@given(NUMBERS, BATCH_SIZES, RANKS)
def test_evaluation_sees_every_row_once_as_valid(number: int, batch_size: int, ranks: int) -> None:
    samplers = [EvalBatches(rows_of(number), batch_size, rank=rank, world_size=ranks) for rank in range(ranks)]
    batches = [list(sampler) for sampler in samplers]
    draws = [draw for mine in batches for batch in mine for draw in batch]
    assert sorted(draw.row for draw in draws if draw.valid) == rows_of(number).tolist()
    assert {len(mine) for mine in batches} == {len(samplers[0])}
    assert len({tuple(map(len, mine)) for mine in batches}) == 1
    assert all(draw.row in rows_of(number) for draw in draws)


@given(NUMBERS, BATCH_SIZES)
def test_one_rank_evaluates_in_order_without_padding(number: int, batch_size: int) -> None:
    draws = [draw for batch in EvalBatches(rows_of(number), batch_size) for draw in batch]
    assert [draw.row for draw in draws] == rows_of(number).tolist()
    assert all(draw.valid for draw in draws)


@given(NUMBERS, BATCH_SIZES, RANKS)
def test_training_draws_no_row_twice_and_few_are_left_out(number: int, batch_size: int, ranks: int) -> None:
    if number < ranks:
        return
    batches = epoch_of(number, batch_size, ranks)
    rows = [draw.row for mine in batches for batch in mine for draw in batch]
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(rows_of(number).tolist())
    assert number - len(rows) < 2 * ranks
    assert all(draw.valid for mine in batches for batch in mine for draw in batch)


@given(NUMBERS, BATCH_SIZES, RANKS)
def test_ranks_have_batches_of_the_same_sizes_as_announced(number: int, batch_size: int, ranks: int) -> None:
    if number < ranks:
        return
    batches = epoch_of(number, batch_size, ranks)
    assert len({tuple(map(len, mine)) for mine in batches}) == 1
    assert len(TrainBatches(rows_of(number), batch_size, seed=0, world_size=ranks)) == len(batches[0]) > 0


@given(st.integers(2, 80), st.integers(2, 9), RANKS)
def test_no_last_batch_of_one_image(number: int, batch_size: int, ranks: int) -> None:
    if number < 2 * ranks:
        return
    assert all(len(batch) > 1 for mine in epoch_of(number, batch_size, ranks) for batch in mine)


def test_batches_of_one_lose_no_image_when_they_are_asked_for() -> None:
    assert len(TrainBatches(rows_of(7), 1, seed=0)) == 7


def test_fewer_images_than_ranks_is_an_error() -> None:
    with pytest.raises(DataError, match="2 training images cannot be shared among 3 devices"):
        TrainBatches(rows_of(2), 4, seed=0, rank=0, world_size=3)


def test_an_epoch_is_a_pure_function_of_seed_and_epoch() -> None:
    sampler = TrainBatches(rows_of(20), 4, seed=3)
    sampler.set_epoch(5)
    np.random.seed(1)
    first = list(sampler)
    np.random.seed(2)
    assert first == list(sampler) == epoch_of(20, 4, 1, seed=3, epoch=5)[0]
    assert first != epoch_of(20, 4, 1, seed=3, epoch=6)[0]
    assert first != epoch_of(20, 4, 1, seed=4, epoch=5)[0]


@given(st.integers(5, 60), RANKS)
def test_a_rows_augmentation_is_the_same_on_any_number_of_ranks(number: int, ranks: int) -> None:
    alone = {draw.row: draw.seed for batch in epoch_of(number, 4, 1)[0] for draw in batch}
    shared = {draw.row: draw.seed for mine in epoch_of(number, 4, ranks) for batch in mine for draw in batch}
    assert all(alone.get(row, seed) == seed for row, seed in shared.items())


def test_augmentation_differs_between_rows_and_epochs() -> None:
    seeds = [draw.seed for epoch in range(3) for batch in epoch_of(50, 8, 1, epoch=epoch)[0] for draw in batch]
    assert len(set(seeds)) == len(seeds) == 150


def test_two_ranks_see_together_what_one_sees_in_a_batch_twice_as_large() -> None:
    alone = epoch_of(32, 8, 1)[0]
    first, second = epoch_of(32, 4, 2)
    for batch, half, other in zip(alone, first, second, strict=True):
        assert set(batch) == {*half, *other}


def test_weighted_draws_follow_the_weights_and_differ_in_their_augmentation() -> None:
    weights = np.array([8.0, 1.0, 1.0])
    counts: Counter[int] = Counter()
    seeds = []
    sampler = TrainBatches(np.array([0, 1, 2]), 3, seed=0, weights=weights)
    for epoch in range(1000):
        sampler.set_epoch(epoch)
        draws = [draw for batch in sampler for draw in batch]
        counts.update(draw.row for draw in draws)
        seeds += [draw.seed for draw in draws]
    assert abs(counts[0] / 3000 - 0.8) < 0.03
    assert len(set(seeds)) > 2990
