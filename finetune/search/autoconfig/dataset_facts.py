"""Dataset facts that rules choose by: how many images of what, and what computes."""

from dataclasses import dataclass

import numpy as np

from finetune.data.table import ImageTable, LabelTask


@dataclass(frozen=True)
class DatasetFacts:
    """What a recipe is chosen from.

    Attributes:
        train: Training images.
        val: Validation images.
        test: Test images.
        per_class: Training images of the median class.
        task: One label per image or several.
        on_cpu: Whether the network is computed on the CPU.
        batch_size: Images of a training step, on all devices together.
    """

    train: int
    val: int
    test: int
    per_class: float
    task: LabelTask
    on_cpu: bool
    batch_size: int

    @property
    def steps(self) -> int:
        """Training steps of an epoch."""
        return max(1, -(-self.train // self.batch_size))


def gather_facts(table: ImageTable, *, on_cpu: bool, batch_size: int) -> DatasetFacts:
    """Return what is known of a table whose images are all in a split."""
    sizes = {split: len(table.rows(split)) for split in ("train", "val", "test")}
    targets = table.targets()[table.rows("train")]
    counts = targets.sum(0) if table.task == "multilabel" else np.bincount(targets, minlength=table.num_classes)
    return DatasetFacts(
        **sizes, per_class=float(np.median(counts)), task=table.task, on_cpu=on_cpu, batch_size=batch_size
    )
