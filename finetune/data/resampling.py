"""Resampling against class imbalance: how often each training image is drawn under each policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from finetune.data.groups import joined_names, training_balance
from finetune.data.sampling import Resampling, TrainBatches
from finetune.data.table import ImageTable

# policies that change what an epoch is
RESAMPLED: dict[str, Literal["oversample", "undersample"]] = {
    "oversample": "oversample",
    "undersample": "undersample",
    "augment_minority": "oversample",
}


@dataclass(frozen=True)
class Balance:
    """How training images are drawn.

    Attributes:
        policy: balanced_sampler draws each class equally often on average, with replacement; oversample, undersample
            and augment_minority do so in each epoch; with any other, each image is drawn once an epoch.
        columns: Group columns of which each class of each group then counts the same.
    """

    policy: str = "none"
    columns: tuple[str, ...] = ()

    def resampling(self, table: ImageTable) -> Resampling | None:
        """Return how an epoch brings classes to the same size; None where it does not."""
        if self.policy not in RESAMPLED:
            return None
        return Resampling(training_strata(table, self.columns), RESAMPLED[self.policy])

    def weights(self, table: ImageTable) -> npt.NDArray[np.float64] | None:
        """Return how often each training image (N,) is drawn on average over epochs; None where all are alike."""
        resampling = self.resampling(table)
        if resampling is not None:
            return resampling.weights()
        return training_balance(table, self.columns) if self.policy == "balanced_sampler" else None

    def batches(
        self,
        table: ImageTable,
        rows: npt.NDArray[np.int64],
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> TrainBatches:
        """Return the batches of a table's training images, which go by the numbers `rows` (N,)."""
        return TrainBatches(
            rows,
            batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            weights=self.weights(table),
            resampling=self.resampling(table),
        )


def training_strata(table: ImageTable, columns: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the number of the class, in each group of the columns, that a table's training images (N,) count for.

    An image with several labels counts for the rarest of them in training, one with none for a class of its own.
    """
    rows = table.rows("train")
    targets = table.targets()[rows]
    if targets.ndim == 2:
        worth = np.where(targets > 0, targets.sum(axis=0), np.inf)
        targets = np.where(targets.any(axis=1), worth.argmin(axis=1), targets.shape[1])
    groups = joined_names(table.frame.iloc[rows], columns) if columns else np.zeros(len(rows), dtype=np.int64)
    numbers = pd.factorize(groups)[0]
    return np.asarray(numbers * (int(targets.max(initial=0)) + 1) + targets, dtype=np.int64)
