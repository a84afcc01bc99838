"""Samplers: which images make up a batch, in which order, on which rank.

Order, padding and the seed of every draw are pure functions of seed and epoch, so that a resumed or distributed run
sees what an uninterrupted one sees.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from finetune.errors import DataError

_Rows = npt.NDArray[np.int64]


class Draw(NamedTuple):
    """One image of a batch.

    Attributes:
        row: The image's row in the table.
        seed: Seeds the image's augmentation.
        valid: False for padding, which is left out of every score.
        repeat: True for all but one of the draws of an image in an epoch that brings rare classes up to others.
    """

    row: int
    seed: int
    valid: bool
    repeat: bool = False


@dataclass(frozen=True)
class Resampling:
    """Epochs in which each class counts the same, by drawing whole classes again or in part.

    Attributes:
        cells: The class of each row (N,), or what else is to count the same.
        kind: oversample brings every cell up to the largest: each image is drawn as often as that needs, and what is
            left over once more without repetition. undersample brings every cell down to the smallest, by a new draw
            without repetition in each epoch.

    Source: Buda et al. 2018, A systematic study of the class imbalance problem in convolutional neural networks,
    section 2.2.
    """

    cells: _Rows
    kind: Literal["oversample", "undersample"]

    @property
    def target(self) -> int:
        """How often each cell is drawn in an epoch."""
        sizes = np.unique(self.cells, return_counts=True)[1]
        return int(sizes.max() if self.kind == "oversample" else sizes.min())

    @property
    def size(self) -> int:
        """The number of draws of an epoch."""
        return self.target * len(np.unique(self.cells))

    def weights(self) -> npt.NDArray[np.float64]:
        """Return how often each row (N,) is drawn, on average over epochs, as a multiple of the mean."""
        _, inverse, sizes = np.unique(self.cells, return_inverse=True, return_counts=True)
        share = 1.0 / sizes[inverse]
        return np.asarray(share / share.mean(), dtype=np.float64)

    def repeated(self) -> _Rows:
        """Return the positions (M,) of the rows that an epoch may draw more than once."""
        _, inverse, sizes = np.unique(self.cells, return_inverse=True, return_counts=True)
        return np.flatnonzero(sizes[inverse] < self.target).astype(np.int64)

    def draw(self, generator: np.random.Generator) -> tuple[_Rows, npt.NDArray[np.bool_]]:
        """Return the positions of an epoch in order, and which of them are repeats."""
        positions, repeats = [], []
        for cell in np.unique(self.cells):
            own = generator.permutation(np.flatnonzero(self.cells == cell))
            drawn = np.resize(own, self.target)
            positions.append(drawn)
            repeats.append(np.arange(self.target) >= len(own))
        order = generator.permutation(self.size)
        return np.concatenate(positions).astype(np.int64)[order], np.concatenate(repeats)[order]


class TrainBatches(Sampler[list[Draw]]):
    """Shuffled batches; every rank gets the same number, and no image is drawn twice in an epoch unless asked for.

    Without weights or resampling an epoch is a permutation, of which up to `world_size - 1` images at the end are left
    out so that the ranks are even, and as many as there are ranks where else the last batches were of one image. With
    weights, rows are drawn with replacement in proportion to them; a resampling says itself which are drawn. The order
    and each draw's seed are the same for any number of ranks.
    """

    def __init__(
        self,
        rows: _Rows,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        weights: npt.NDArray[np.float64] | None = None,
        resampling: Resampling | None = None,
    ) -> None:
        """Draw from `rows` in batches of `batch_size` per rank.

        Args:
            rows: Row numbers (N,).
            batch_size: Images per batch and rank.
            seed: The run's seed.
            rank: This rank.
            world_size: Number of ranks.
            weights: Relative frequency of each row (N,), or None for a permutation.
            resampling: Draws classes equally often; goes before weights.

        Raises:
            DataError: There are fewer rows than ranks.
        """
        self.size = len(rows) if resampling is None else resampling.size
        if self.size < world_size:
            raise DataError(
                f"{self.size} training images cannot be shared among {world_size} devices. Set trainer.devices=1."
            )
        self.rows = np.asarray(rows, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.weights = None if weights is None else weights / weights.sum()
        self.resampling = resampling
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        self.epoch = epoch

    def order(self) -> _Rows:
        """Return the rows of the epoch in order, over all ranks."""
        return self.plan()[0]

    def plan(self) -> tuple[_Rows, npt.NDArray[np.bool_]]:
        """Return the rows of the epoch in order, and which of them are drawn again, over all ranks."""
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.resampling is not None:
            positions, repeats = self.resampling.draw(generator)
            return self.rows[positions], repeats
        if self.weights is not None:
            order = generator.choice(self.rows, size=self.size, replace=True, p=self.weights)
        else:
            order = generator.permutation(self.rows)
        return order, np.zeros(self.size, dtype=bool)

    def seeds(self) -> _Rows:
        """Return the seed of each draw of the epoch, over all ranks."""
        return np.random.default_rng([self.seed, self.epoch, 1]).integers(2**32, size=self.size)

    def __len__(self) -> int:
        """Return the number of batches per rank."""
        return len(self.sizes())

    def sizes(self) -> list[int]:
        """Return the size of each batch; a last batch of one image, on which BatchNorm fails, is left out."""
        share = self.size // self.world_size
        full, rest = divmod(share, self.batch_size)
        return [self.batch_size] * full + [rest] * (rest > 1 or (rest == 1 and not full))

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the batches of the epoch."""
        (order, repeats), seeds = self.plan(), self.seeds()
        mine = slice(self.rank, None, self.world_size)
        parts = zip(order[mine].tolist(), seeds[mine].tolist(), repeats[mine].tolist(), strict=True)
        draws = [Draw(row, seed, True, repeat) for row, seed, repeat in parts]
        start = 0
        for size in self.sizes():
            yield draws[start : start + size]
            start += size


class EvalBatches(Sampler[list[Draw]]):
    """All rows in order, shared among the ranks, each exactly once.

    Ranks get the same number of batches, since they meet in collective operations; where one has fewer images its last
    batch is filled with draws that are not valid.
    """

    def __init__(
        self, rows: _Rows, batch_size: int, *, rank: int = 0, world_size: int = 1, seeds: Sequence[int] | None = None
    ) -> None:
        """Go through `rows` in batches of at most `batch_size` per rank, with a seed each where images are varied."""
        self.rows = np.asarray(rows, dtype=np.int64)
        self.seeds = [0] * len(self.rows) if seeds is None else list(seeds)
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the order is the same in every epoch."""

    def share(self) -> int:
        """Return the number of draws per rank."""
        return -(-len(self.rows) // self.world_size)

    def __len__(self) -> int:
        """Return the number of batches per rank."""
        return -(-self.share() // self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the batches of this rank."""
        mine = slice(self.rank, None, self.world_size)
        draws = [Draw(row, seed, True) for row, seed in zip(self.rows[mine].tolist(), self.seeds[mine], strict=True)]
        draws += [Draw(int(self.rows[0]), self.seeds[0], False)] * (self.share() - len(draws))
        for start in range(0, len(draws), self.batch_size):
            yield draws[start : start + self.batch_size]
