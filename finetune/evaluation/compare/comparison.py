"""Comparison of several runs with one baseline: who takes part, and all that is said of each pair."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.errors import ConfigError, DataError
from finetune.evaluation.bootstrap import LEVEL, draw_weights
from finetune.evaluation.compare.paired import Changes, Difference, align_predictions, compare_pair
from finetune.evaluation.compare.significance import McNemar, detectable_difference, mcnemar
from finetune.evaluation.fairness.partition import EVERY_GROUP, partitions
from finetune.evaluation.metrics import WHOLE
from finetune.evaluation.multiple_testing import holm
from finetune.evaluation.predictions import Predictions
from finetune.runs.run import Run

_LEVEL = 0.05


@dataclass(frozen=True)
class ComparedRun:
    """A run, or an evaluation of one.

    Attributes:
        name: As it is called on screen and page.
        path: Its folder.
        predictions: Of the split that is compared.
    """

    name: str
    path: Path
    predictions: Predictions


@dataclass(frozen=True)
class RunPair:
    """A candidate against the baseline, over the same images.

    Attributes:
        name: The candidate's.
        first: What the baseline says.
        second: What the candidate says of the same images.
        changes: Of the metrics, candidate minus baseline.
        test: Of right and wrong.
        corrected: The test's p-value, corrected for the number of candidates.
        groups: By column, then by group: how many images, and the difference in the share that is right.
        detectable: The least difference in accuracy that so many images would show, with 80 % power.
    """

    name: str
    first: Predictions
    second: Predictions
    changes: Changes
    test: McNemar
    corrected: float
    groups: dict[str, dict[str, tuple[int, Difference]]]
    detectable: float

    @property
    def key(self) -> str:
        """The metric that McNemar's test is about: the share of images that are wholly right."""
        return WHOLE[self.first.task]

    @property
    def shown(self) -> bool:
        """Whether the data show a difference: the interval leaves out 0, and the corrected p-value is below 5 %.

        Where few images differ the interval alone leaves out 0 too easily, and it knows nothing of other candidates.
        """
        change = self.changes.metrics[self.key]
        return self.corrected < _LEVEL and (change.decided or math.isnan(change.low))

    def decides(self, name: str) -> bool:
        """Return whether the data show a difference in a metric."""
        return self.shown if name == self.key else self.changes.metrics[name].decided

    @property
    def agreement(self) -> float:
        """The share of images of which both say the same."""
        same = self.first.predicted == self.second.predicted
        return float((same if same.ndim == 1 else same.all(axis=1)).mean())

    def won(self) -> npt.NDArray[np.int64]:
        """Return the rows that the candidate alone has right, where it is surest first."""
        return self._ordered(self.second.right & ~self.first.right)

    def lost(self) -> npt.NDArray[np.int64]:
        """Return the rows that the baseline alone has right, where the candidate is surest first."""
        return self._ordered(self.first.right & ~self.second.right)

    def _ordered(self, marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        rows = np.flatnonzero(marked)
        return rows[np.argsort(-self.second.probabilities[rows].max(axis=1), kind="stable")]


@dataclass(frozen=True)
class Comparison:
    """All comparisons with one baseline.

    Attributes:
        baseline: What the others are held against.
        pairs: One for each other run, in the order they were named.
        split: Whose images.
        seed: Of the resamples.
        resamples: Their number.
        left_out: Images that not all of them have.
    """

    baseline: ComparedRun
    pairs: tuple[RunPair, ...]
    split: str
    seed: int
    resamples: int
    left_out: int


def find_compared_run(reference: str, root: Path, split: str) -> ComparedRun:
    """Return the run that a word means, or the evaluation of one, by its folder.

    Raises:
        ConfigError: There is none.
        RunError: It has no predictions of the split.
    """
    folder = Path(reference).expanduser()
    if (folder / "evaluation.json").is_file():
        run = folder.parent.parent
        file = folder / "predictions" / f"{split}.parquet"  # or those of the only split that it has
        there = sorted((folder / "predictions").glob("*.parquet"))
        found = Predictions.load(there[0] if not file.is_file() and len(there) == 1 else file)
        return ComparedRun(f"{short_name(run)}@{folder.name}", folder, found)
    run_folder = Run.find(reference, root)
    return ComparedRun(
        short_name(run_folder.path), run_folder.path, Predictions.load(run_folder.predictions_file(split))
    )


def short_name(run: Path) -> str:
    """Return what a run is called: its folder's name and that above it."""
    return f"{run.parent.name}/{run.name}"


def compare_runs(
    runs_compared: Sequence[ComparedRun], split: str, *, common: bool, resamples: int, seed: int
) -> Comparison:
    """Compare each run with the first.

    Args:
        runs_compared: Two or more; the first is the baseline.
        split: Whose images.
        common: Whether images that not all of them have are left out, and not refused.
        resamples: Of the bootstrap.
        seed: Of the draws.

    Raises:
        ConfigError: There are fewer than two, or one twice.
        DataError: Images or labels differ.
    """
    if len(runs_compared) < 2:
        raise ConfigError("finetune compare needs two runs or more: runs=[A,B], the first is what B is held against.")
    paths = [each.path.resolve() for each in runs_compared]
    if len(set(paths)) < len(paths):
        raise ConfigError("runs= names the same folder twice. Name each run once.")
    base, *others = runs_compared
    known = {name for each in runs_compared for name in each.predictions.ids.tolist()}
    if common:
        base, others = common_images(base, others)
    aligned = [
        align_predictions(base.predictions, each.predictions, (base.name, each.name), common=common) for each in others
    ]
    rights = [(first.right, second.right) for first, second in aligned]
    tests = [mcnemar(*right) for right in rights]
    pairs = [
        RunPair(
            name=each.name, first=first, second=second,
            changes=compare_pair(first, second, resamples=resamples, seed=seed),
            test=test, corrected=corrected, groups=group_differences(first, second, resamples, seed),
            detectable=detectable_difference(*right),
        )
        for each, (first, second), right, test, corrected in zip(
            others, aligned, rights, tests, holm([test.p for test in tests]), strict=True
        )
    ]  # fmt: skip
    left_out = len(known) - pairs[0].first.num
    return Comparison(base, tuple(pairs), split, seed, resamples, left_out)


def common_images(base: ComparedRun, others: list[ComparedRun]) -> tuple[ComparedRun, list[ComparedRun]]:
    """Return all of them over the images that each of them has.

    Raises:
        DataError: There is none.
    """
    ids = set(base.predictions.ids.tolist())
    for each in others:
        ids &= set(each.predictions.ids.tolist())
    if not ids:
        raise DataError("The runs have no image in common. Evaluate them on the same ones: finetune evaluate run=…")
    return restrict_to(base, ids), [restrict_to(each, ids) for each in others]


def restrict_to(contestant: ComparedRun, ids: set[str]) -> ComparedRun:
    """Return a contestant over some images."""
    rows = [row for row, name in enumerate(contestant.predictions.ids.tolist()) if name in ids]
    return replace(contestant, predictions=contestant.predictions.take(rows))


def group_differences(
    first: Predictions, second: Predictions, resamples: int, seed: int
) -> dict[str, dict[str, tuple[int, Difference]]]:
    """Return for each group of each column its number of images and the difference in the share that is right."""
    right = first.right.astype(np.float64), second.right.astype(np.float64)
    return {
        partition.column: {
            group: (len(rows), mean_difference(right[0][rows], right[1][rows], resamples, seed))
            for group, rows in partition.groups.items()
        }
        for partition in partitions(first, EVERY_GROUP)
    }


def mean_difference(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], resamples: int, seed: int
) -> Difference:
    """Return the difference of two means over the same images (N,), with its interval over paired resamples."""
    means = float(first.mean()), float(second.mean())
    if not resamples:
        return Difference(*means, float("nan"), float("nan"))
    change = (second - first).astype(np.float32)
    draws = np.concatenate([change @ weights / len(change) for weights in draw_weights(len(change), resamples, seed)])
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(*means, float(low), float(high))
