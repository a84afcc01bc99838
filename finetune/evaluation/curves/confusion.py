"""Confusion matrix: which class is taken for which, label by label where an image may have several; worst errors."""

from dataclasses import dataclass

import numpy as np

from finetune.evaluation.predictions import Predictions


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """The confusion matrix of a multi-class set.

    Attributes:
        counts: (K, K) int64 images by true class (row) and predicted class (column).
        labels: K names.
    """

    counts: np.ndarray
    labels: tuple[str, ...]

    @property
    def support(self) -> np.ndarray:
        """(K,) int64 images of each class."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def shares(self) -> np.ndarray:
        """(K, K) float64 shares of each row; a row without an image is NaN."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.counts / self.support[:, None])

    @property
    def errors(self) -> np.ndarray:
        """(K, K) int64 counts without the diagonal."""
        return np.asarray(self.counts - np.diag(np.diag(self.counts)))


@dataclass(frozen=True)
class ConfusedPair:
    """A class that is taken for another.

    Attributes:
        true: The class.
        predicted: What it is taken for.
        count: How many images.
        share: Of the class's images.
        reverse: How many images of the other are taken for this one.
    """

    true: str
    predicted: str
    count: int
    share: float
    reverse: int


@dataclass(frozen=True)
class LabelCounts:
    """The 2 x 2 matrix of one label of a multi-label set."""

    label: str
    hits: int
    alarms: int
    misses: int
    rest: int


@dataclass(frozen=True)
class Misclassification:
    """A wrong decision.

    Attributes:
        id: Of the image.
        path: Of the image.
        true: Its label; in a multi-label set, all of its labels.
        predicted: What was predicted in its place.
        label: The label that was decided wrongly.
        probability: That the network gave to its wrong decision.
    """

    id: str
    path: str
    true: str
    predicted: str
    label: str
    probability: float


def confusion_matrix(predictions: Predictions) -> ConfusionMatrix:
    """Count true against predicted classes of a multi-class set."""
    size = len(predictions.labels)
    cells = predictions.targets * size + predictions.predicted
    return ConfusionMatrix(np.bincount(cells, minlength=size * size).reshape(size, size), predictions.labels)


def label_counts(predictions: Predictions) -> list[LabelCounts]:
    """Count hits, false alarms, misses and the rest of each label of a multi-label set."""
    truth, called = predictions.targets == 1, predictions.predicted == 1
    parts = [(a & b).sum(axis=0).tolist() for a, b in ((truth, called), (~truth, called), (truth, ~called))]
    return [
        LabelCounts(label, hits, alarms, misses, predictions.num - hits - alarms - misses)
        for label, hits, alarms, misses in zip(predictions.labels, *parts, strict=True)
    ]


def most_confused(matrix: ConfusionMatrix, limit: int = 20) -> list[ConfusedPair]:
    """Return the pairs with the most errors, the larger share of the true class first among equals."""
    rows, columns = np.nonzero(matrix.errors)
    counts, shares = matrix.counts[rows, columns], matrix.shares[rows, columns]
    order = np.lexsort((-shares, -counts))[:limit]
    found = zip(rows[order], columns[order], shares[order].tolist(), strict=True)
    return [
        ConfusedPair(matrix.labels[a], matrix.labels[b], int(matrix.counts[a, b]), share, int(matrix.counts[b, a]))
        for a, b, share in found
    ]


def confident_errors(predictions: Predictions, limit: int = 20) -> list[Misclassification]:
    """Return the wrong decisions with the highest probability; of equals, the first in the table."""
    rows, columns, sure = _wrong_decisions(predictions)
    order = np.argsort(-sure, kind="stable")[:limit]
    truth, guesses, labels = predictions.label_names, predictions.predicted_names, predictions.labels
    return [
        Misclassification(
            str(predictions.ids[row]),
            str(predictions.paths[row]),
            truth[row],
            guesses[row],
            labels[column],
            given,
        )
        for row, column, given in zip(rows[order], columns[order], sure[order].tolist(), strict=True)
    ]


def _wrong_decisions(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, label number and the probability given to each wrong decision."""
    if not predictions.multilabel:
        rows = np.flatnonzero(predictions.predicted != predictions.targets)
        columns = predictions.predicted[rows]
        return rows, columns, predictions.probabilities[rows, columns]
    rows, columns = np.nonzero(predictions.predicted != predictions.targets)
    given = predictions.probabilities[rows, columns]
    return rows, columns, np.where(predictions.predicted[rows, columns] == 1, given, 1 - given)
