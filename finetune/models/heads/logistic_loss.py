"""The logistic loss of many problems at once: features made ready for a solver, targets, value and gradient."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

ROTATED_SIZE = 4096  # largest number of columns whose principal axes are computed
PIECE = 2**23  # logits of one piece of an evaluation


@dataclass(frozen=True)
class ClassTargets:
    """What the logits z of an image should be: its loss is mass * log Z(z) - sum(positive * z).

    Attributes:
        positive: How much speaks for each class (N, K).
        mass: How much speaks for or against: one number per image (N, 1) where joint, else (N, K).
        joint: Whether the classes exclude each other: log Z is logsumexp over classes (softmax), else softplus of
            each (sigmoid).
    """

    positive: Tensor
    mass: Tensor
    joint: bool

    def to(self, like: Tensor) -> "ClassTargets":
        """Return the targets on the device and in the precision of a tensor."""
        return replace(self, positive=self.positive.to(like), mass=self.mass.to(like))

    def loss(self, logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Return losses (n, P) and their gradients (n, K, P) for logits (n, K, P) of some rows."""
        positive, mass = self.positive[rows, :, None], self.mass[rows, :, None]
        if self.joint:
            logs = functional.log_softmax(logits, dim=1)
            return -(positive * logs).sum(1), mass * logs.exp() - positive
        losses = mass * functional.softplus(logits) - positive * logits
        return losses.sum(1), mass * torch.sigmoid(logits) - positive


def softmax_targets(classes: Tensor, num_classes: int, smoothing: float, class_weights: Tensor | None) -> ClassTargets:
    """Return targets whose loss, weighted by `class_weights[classes]`, is torch's weighted and smoothed cross-entropy.

    Args:
        classes: Classes (N,) or class probabilities (N, K).
        num_classes: K.
        smoothing: Share of each target that is spread over all classes.
        class_weights: Weights (K,), None where all are 1.
    """
    hard = classes.ndim == 1
    one = functional.one_hot(classes.long(), num_classes).double() if hard else classes.double()
    positive = one * (1 - smoothing) + smoothing / num_classes
    if class_weights is not None:
        weights = class_weights.double().to(positive.device)
        positive = positive * weights
        if hard:  # the weight of an image is applied, and averaged by, outside
            own = weights[classes.long(), None]
            positive = positive / torch.where(own > 0, own, 1.0)
    return ClassTargets(positive, positive.sum(1, keepdim=True), joint=True)


def sigmoid_targets(labels: Tensor, smoothing: float, class_weights: Tensor | None) -> ClassTargets:
    """Return targets whose loss is the sum over labels of torch's weighted and smoothed binary cross-entropy.

    Args:
        labels: Multi-hot or mixed labels (N, K) in [0, 1].
        smoothing: Share of each target that is replaced by one half.
        class_weights: Weights (K,) of images that have the label, None where all are 1.
    """
    smooth = labels.double() * (1 - smoothing) + smoothing / 2
    positive = smooth if class_weights is None else smooth * class_weights.double().to(smooth.device)
    return ClassTargets(positive, positive + 1 - smooth, joint=False)


@dataclass(frozen=True)
class DesignMatrix:
    """Features as a solver sees them: z = ((x - center) / scale) @ axes, and a column of ones for the bias.

    Attributes:
        values: Ready columns with the ones (N, R + 1), or the raw features (N, F) that are made ready piece by piece.
        center: Subtracted from each feature (F,).
        scale: Divides each feature (F,).
        axes: Orthonormal columns (F, R); None where nothing is rotated.
        curvature: Mean square of each ready column (R,).
        ready: Whether the values are ready.
    """

    values: Tensor
    center: Tensor
    scale: Tensor
    axes: Tensor | None
    curvature: Tensor
    ready: bool

    def rows(self, start: int, stop: int) -> Tensor:
        """Return ready columns (n, R + 1) of some rows."""
        if self.ready:
            return self.values[start:stop]
        block = (self.values[start:stop].to(self.center) - self.center) / self.scale
        return with_ones(block)

    def pick(self, columns: Tensor) -> "DesignMatrix":
        """Return some of the columns (a mask (R,)) of a design that is ready."""
        ones = torch.ones_like(columns[:1])
        return replace(self, values=self.values[:, torch.cat([columns, ones])], curvature=self.curvature[columns])

    def restore(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (F, K, P) and biases (K, P), for standardised features, of columns' weights (R + 1, K, P).

        Standardised features are those divided by scale with their center subtracted.
        """
        inner = weight[:-1]
        return (inner if self.axes is None else torch.tensordot(self.axes, inner, dims=1)), weight[-1]


def with_ones(block: Tensor) -> Tensor:
    """Return columns (n, R) with a column of ones behind them."""
    return functional.pad(block, (0, 1), value=1.0)


def make_design(
    features: Tensor, center: Tensor, scale: Tensor, *, rotate: bool, dtype: torch.dtype, chunk: int | None = None
) -> DesignMatrix:
    """Return features made ready for a solver.

    Rotating onto the principal axes changes neither loss nor squared penalty, makes the columns' curvatures nearly
    those of the loss, and leaves as many columns as there are rows where there are fewer rows than features.

    Args:
        features: Features (N, F); may be a memory-mapped tensor if they are taken in chunks.
        center: Subtracted (F,); the bias makes up for it.
        scale: Divides (F,).
        rotate: Whether columns may be rotated, which a penalty on absolute weights does not allow.
        dtype: Precision in which the problem is solved.
        chunk: Rows that are in memory at a time; None for all.

    Source: Hastie et al. 2009, The Elements of Statistical Learning, section 18.3.5 (fewer rows than features).
    """
    center, scale = center.to(dtype), scale.to(dtype)
    if chunk is not None:
        lazy = DesignMatrix(features, center, scale, None, torch.ones_like(center), ready=False)
        total = torch.zeros_like(center)
        for start in range(0, len(features), chunk):
            total += lazy.rows(start, start + chunk)[:, :-1].square().sum(0)
        return replace(lazy, curvature=total / len(features))
    values = (features.to(dtype) - center) / scale
    axes = principal_axes(values) if rotate and min(values.shape) <= ROTATED_SIZE else None
    columns = values if axes is None else values @ axes
    return DesignMatrix(with_ones(columns), center, scale, axes, columns.square().mean(0), ready=True)


def principal_axes(values: Tensor) -> Tensor:
    """Return orthonormal columns (F, R) that span the rows of values (N, F), along their principal axes."""
    if values.shape[0] < values.shape[1]:
        basis, coordinates = torch.linalg.qr(values.T)
        axes: Tensor = basis @ torch.linalg.eigh(coordinates @ coordinates.T)[1]
        return axes
    whole: Tensor = torch.linalg.eigh(values.T @ values)[1]
    return whole


@dataclass(frozen=True)
class LogisticObjective:
    """The mean losses of P problems that share features and targets and differ in the weights of images.

    Attributes:
        design: The features.
        targets: The targets.
        weights: Weight of each image in each problem (N, P); each column sums to 1.
        chunk: Rows taken at a time; None for as many as make pieces of a good size.
    """

    design: DesignMatrix
    targets: ClassTargets
    weights: Tensor
    chunk: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the weights that are looked for: (R + 1, K, P)."""
        return len(self.design.curvature) + 1, self.targets.positive.shape[1], self.weights.shape[1]

    def keep(self, problems: Tensor) -> "LogisticObjective":
        """Return the objective of some of the problems."""
        return replace(self, weights=self.weights[:, problems])

    def pieces(self) -> Iterator[slice]:
        """Yield slices that cover the rows."""
        count = len(self.weights)
        step = self.chunk or max(256, PIECE // max(1, self.shape[1] * self.shape[2]))
        return (slice(start, min(start + step, count)) for start in range(0, count, step))

    def logits(self, weight: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield rows, their columns (n, R + 1) and their logits (n, K, P) at weights (R + 1, K, P)."""
        flat = weight.reshape(weight.shape[0], -1)
        for rows in self.pieces():
            block = self.design.rows(rows.start, rows.stop)
            yield rows, block, (block @ flat).view(len(block), *weight.shape[1:])

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean losses (P,) and gradients (R + 1, K, P) at weights (R + 1, K, P)."""
        value, gradient = weight.new_zeros(weight.shape[2]), weight.new_zeros(len(weight), weight[0].numel())
        for rows, block, logits in self.logits(weight):
            losses, slopes = self.targets.loss(logits, rows)
            shares = self.weights[rows]
            value += (losses * shares).sum(0)
            gradient += block.T @ (slopes * shares[:, None]).reshape(len(block), -1)
        return value, gradient.view_as(weight)

    def uncertainty(self, weight: Tensor) -> Tensor:
        """Return the mean variances (P,) of the classes' indicators as predicted: how much the losses bend."""
        total = weight.new_zeros(weight.shape[2])
        for rows, _, logits in self.logits(weight):
            likely = logits.softmax(1) if self.targets.joint else logits.sigmoid()
            total += ((likely * (1 - likely)).mean(1) * self.weights[rows]).sum(0)
        return total.clamp(min=1e-6)

    def score(self, weight: Tensor, truth: ClassTargets, held: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean losses (P,) against `truth`, and accuracies (P,), under image weights `held` (N, P)."""
        value, hits = weight.new_zeros(weight.shape[2]), weight.new_zeros(weight.shape[2])
        for rows, _, logits in self.logits(weight):
            value += (truth.loss(logits, rows)[0] * held[rows]).sum(0)
            hits += (_right(logits, truth, rows) * held[rows]).sum(0)
        return value, hits


def _right(logits: Tensor, truth: ClassTargets, rows: slice) -> Tensor:
    """Return how right the predictions of logits (n, K, P) are (n, P): 0 or 1, or the share of right labels."""
    positive, mass = truth.positive[rows], truth.mass[rows]
    if truth.joint:
        return (logits.argmax(1) == positive.argmax(1)[:, None]).to(logits)
    return ((logits > 0) == (positive > mass / 2)[:, :, None]).to(logits).mean(1)


def collapse(targets: ClassTargets) -> ClassTargets:
    """Return two exclusive classes as one sigmoid of the difference of their logits; other targets as they are.

    The shortest weights of a given difference are half of it with either sign, so that half of a squared penalty on
    both columns is a quarter of it on the difference, and one on absolute weights stays what it is.
    """
    if not targets.joint or targets.positive.shape[1] != 2:
        return targets
    return ClassTargets(targets.positive[:, 1:], targets.mass, joint=False)


def expand_weights(weight: Tensor, num_classes: int) -> Tensor:
    """Return the weights (R, K, P) of both classes where `collapse` made them one difference (R, 1, P)."""
    if num_classes == 2 and weight.shape[1] == 1:
        return torch.cat([-weight / 2, weight / 2], dim=1)
    return weight
