"""Batches of row numbers: which images make up a batch, in which order, on which rank.

It decides order, padding and the random seed of every draw as pure functions of seed and epoch, so that a resumed or
distributed run sees what an uninterrupted one sees; reading the images is left to the data module.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from finetune.errors import DataError

Rows = npt.NDArray[np.int64]


class Draw(NamedTuple):
    """One image of a batch.

    Attributes:
        row: The image's row in the table.
        seed: Seeds the image's augmentation.
        valid: False for padding, which is left out of every score.
    """

    row: int
    seed: int
    valid: bool


class TrainBatches(Sampler[list[Draw]]):
    """Shuffled batches; every rank gets the same number, and no image is drawn twice in an epoch.

    Without weights an epoch is a permutation, of which up to `world_size - 1` images at the end are left out so that
    the ranks are even, and as many as there are ranks where else the last batches were of one image. With weights, rows
    are drawn with replacement in proportion to them. The order and each draw's seed are the same for any number of
    ranks.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        weights: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Draw from `rows` in batches of `batch_size` per rank.

        Args:
            rows: Row numbers (N,).
            batch_size: Images per batch and rank.
            seed: The run's seed.
            rank: This rank.
            world_size: Number of ranks.
            weights: Relative frequency of each row (N,), or None for a permutation.

        Raises:
            DataError: There are fewer rows than ranks.
        """
        if len(rows) < world_size:
            raise DataError(
                f"{len(rows)} training images cannot be shared among {world_size} devices. Set trainer.devices=1."
            )
        self.rows = np.asarray(rows, dtype=np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.weights = None if weights is None else weights / weights.sum()
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        self.epoch = epoch

    def order(self) -> Rows:
        """Return the rows of the epoch in order, over all ranks."""
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.weights is not None:
            return generator.choice(self.rows, size=len(self.rows), replace=True, p=self.weights)
        return generator.permutation(self.rows)

    def seeds(self) -> Rows:
        """Return the seed of each draw of the epoch, over all ranks."""
        return np.random.default_rng([self.seed, self.epoch, 1]).integers(2**32, size=len(self.rows))

    def __len__(self) -> int:
        """Return the number of batches per rank."""
        return len(self.sizes())

    def sizes(self) -> list[int]:
        """Return the size of each batch; a last batch of one image, on which BatchNorm fails, is left out."""
        share = len(self.rows) // self.world_size
        full, rest = divmod(share, self.batch_size)
        return [self.batch_size] * full + [rest] * (rest > 1 or (rest == 1 and not full))

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the batches of the epoch."""
        order, seeds = self.order(), self.seeds()
        mine = slice(self.rank, None, self.world_size)
        draws = [Draw(row, seed, True) for row, seed in zip(order[mine].tolist(), seeds[mine].tolist(), strict=True)]
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
        self, rows: Rows, batch_size: int, *, rank: int = 0, world_size: int = 1, seeds: Sequence[int] | None = None
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
