"""Losses over logits: cross-entropy, focal and generalised cross-entropy for one label, binary for several."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from finetune.errors import ConfigError

_Task = Literal["multiclass", "multilabel"]
_Weights = Tensor | Sequence[float] | None


class _WeightedLoss(nn.Module):
    """A loss whose classes may count differently; the weights move with the module but are not part of its state."""

    task: ClassVar[_Task]
    convex: ClassVar[bool] = True  # in the logits

    def __init__(self, class_weights: _Weights) -> None:
        super().__init__()
        if class_weights is not None and not isinstance(class_weights, Tensor):
            class_weights = torch.tensor([float(weight) for weight in class_weights])
        if class_weights is not None and not (torch.isfinite(class_weights).all() and (class_weights >= 0).all()):
            raise ConfigError("loss.class_weights must be finite and not negative: one number per class, or null.")
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)

    def weights_for(self, logits: Tensor) -> Tensor | None:
        """Return the weights (K,) of the classes of logits (B, K), None where all count the same.

        Raises:
            ConfigError: There is not one weight per class.
        """
        weights = self.class_weights
        if weights is not None and len(weights) != logits.shape[1]:
            raise ConfigError(
                f"loss.class_weights has {len(weights)} numbers for {logits.shape[1]} classes. "
                "Give one per class, in the order of the sorted labels, or use imbalance=class_weights."
            )
        return weights


class CrossEntropy(_WeightedLoss):
    """Softmax cross-entropy, for one label per image.

    Attributes:
        offsets: Added to the logits (K,) wherever the loss is computed; None for nothing.

    Source: Szegedy et al. 2016, Rethinking the Inception Architecture, section 7 (label smoothing).
    """

    task = "multiclass"

    def __init__(self, label_smoothing: float = 0.0, class_weights: _Weights = None) -> None:
        """Hold the settings.

        Args:
            label_smoothing: Share of each target, in [0, 1), that is spread evenly over all classes.
            class_weights: One weight per class.

        Raises:
            ConfigError: A setting is out of range.
        """
        super().__init__(class_weights)
        self.label_smoothing = _checked_smoothing(label_smoothing)
        self.offsets: Tensor | None
        self.register_buffer("offsets", None, persistent=False)

    def forward(self, logits: Tensor, target: Tensor, image_weights: Tensor | None = None) -> Tensor:
        """Return the mean loss of logits (B, K) against classes (B,) or class probabilities (B, K).

        Weights of classes and of images (B,) are used as they are, see `weighted_mean`: torch would divide by the
        weights of a batch's hard targets, and the mean over batches or devices were not that of all images.
        """
        logits = logits.float() if self.offsets is None else logits.float() + self.offsets
        options: Any = {"weight": self.weights_for(logits), "label_smoothing": self.label_smoothing}
        return weighted_mean(functional.cross_entropy(logits, target, reduction="none", **options), image_weights)


class Focal(_WeightedLoss):
    """Cross-entropy that counts well-classified images less, for one label per image.

    Source: Lin et al. 2017, Focal Loss for Dense Object Detection, section 3.2 (softmax form).
    """

    task = "multiclass"
    convex = False

    def __init__(self, gamma: float = 2.0, class_weights: _Weights = None) -> None:
        """Hold the settings.

        Args:
            gamma: How fast the loss of well-classified images fades; 0 is cross-entropy.
            class_weights: One weight per class (alpha in the paper).

        Raises:
            ConfigError: A setting is out of range.
        """
        super().__init__(class_weights)
        if gamma < 0:
            raise ConfigError(f"loss.gamma={gamma} must not be negative: 0 is cross-entropy, 2 is usual.")
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor, image_weights: Tensor | None = None) -> Tensor:
        """Return the mean loss of logits (B, K) against classes (B,) or class probabilities (B, K).

        Weights of classes and of images (B,) are used as in cross-entropy.
        """
        log_probabilities = functional.log_softmax(logits.float(), dim=1)
        # away from 0, where the power has no finite slope for a gamma below 1
        misses = (-log_probabilities.expm1()).clamp(min=torch.finfo(torch.float32).eps)
        losses = -misses.pow(self.gamma) * log_probabilities
        return _own_losses(losses, target, self.weights_for(logits), image_weights)


class GeneralisedCrossEntropy(_WeightedLoss):
    """A loss between cross-entropy and absolute error, which a few wrong labels sway less, for one label per image.

    Source: Zhang and Sabuncu 2018, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels,
    section 3.2.
    """

    task = "multiclass"
    convex = False

    def __init__(self, q: float = 0.7, class_weights: _Weights = None) -> None:
        """Hold the settings.

        Args:
            q: From above 0, near which it is cross-entropy, to 1, where it is half the absolute error.
            class_weights: One weight per class.

        Raises:
            ConfigError: A setting is out of range.
        """
        super().__init__(class_weights)
        if not 0 < q <= 1:
            raise ConfigError(f"loss.q={q} must be above 0 and at most 1; 0.7 is usual, and near 0 is cross-entropy.")
        self.q = q

    def forward(self, logits: Tensor, target: Tensor, image_weights: Tensor | None = None) -> Tensor:
        """Return the mean of (1 - p^q) / q, where p is what logits (B, K) give the class (B,) or classes (B, K).

        Weights of classes and of images (B,) are used as in cross-entropy.
        """
        # as an exponential, whose slope is finite where a probability is 0
        losses = -(self.q * functional.log_softmax(logits.float(), dim=1)).expm1() / self.q
        return _own_losses(losses, target, self.weights_for(logits), image_weights)


class BinaryCrossEntropy(_WeightedLoss):
    """Sigmoid cross-entropy of each label by itself, for any number of labels per image."""

    task = "multilabel"

    def __init__(self, label_smoothing: float = 0.0, class_weights: _Weights = None) -> None:
        """Hold the settings.

        Args:
            label_smoothing: Share of each target, in [0, 1), that is replaced by one half.
            class_weights: For each label, how much an image that has it counts against one that has not.

        Raises:
            ConfigError: A setting is out of range.
        """
        super().__init__(class_weights)
        self.label_smoothing = _checked_smoothing(label_smoothing)

    def forward(self, logits: Tensor, target: Tensor, image_weights: Tensor | None = None) -> Tensor:
        """Return the mean loss of logits (B, K) against multi-hot or mixed targets (B, K) in [0, 1].

        Images may have weights (B,), see `weighted_mean`.
        """
        logits = logits.float()
        target = target.float() * (1 - self.label_smoothing) + self.label_smoothing / 2
        weights = self.weights_for(logits)
        if image_weights is None:
            return functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weights)
        losses = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weights, reduction="none")
        return weighted_mean(losses.mean(dim=1), image_weights)


def weighted_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of losses (B,) times weights (B,), whose mean over all training images is 1.

    It is not divided by the weights of the batch: over batches or devices with as many images each, the mean of their
    means is that of all images together.
    """
    return losses.mean() if weights is None else (losses * weights.to(losses)).mean()


def _own_losses(losses: Tensor, target: Tensor, weights: Tensor | None, image_weights: Tensor | None) -> Tensor:
    """Return the mean of the losses of all classes (B, K) over classes (B,) or class probabilities (B, K)."""
    if target.ndim == 2:
        soft = target.float() if weights is None else target.float() * weights
        return weighted_mean((soft * losses).sum(dim=1), image_weights)
    own = losses.gather(1, target[:, None]).squeeze(1)
    return weighted_mean(own if weights is None else own * weights[target], image_weights)


def check_image_weights(loss: nn.Module) -> None:
    """Check that a loss takes weights of images.

    Raises:
        ConfigError: It is not one of ours.
    """
    if not isinstance(loss, _WeightedLoss):
        raise ConfigError(
            f"{type(loss).__name__} takes no weights of images, which data.balance_groups with "
            "imbalance=class_weights needs. Use imbalance=balanced_sampler, or one of our losses."
        )


def check_task(loss: nn.Module, task: _Task) -> None:
    """Check that a loss fits the table's task; a loss of the user's own is trusted.

    Raises:
        ConfigError: The loss is for the other task.
    """
    if not isinstance(loss, _WeightedLoss) or loss.task == task:
        return
    name = type(loss).__name__
    if task == "multilabel":
        raise ConfigError(f"{name} needs exactly one label per image, and these images have several. Use loss=bce.")
    raise ConfigError(f"{name} is for several labels per image; these have one. Use loss=cross_entropy or loss=focal.")


def is_convex(loss: nn.Module) -> bool:
    """Return whether a loss is convex in the logits, which is known of our own alone."""
    return isinstance(loss, _WeightedLoss) and loss.convex


def class_weights(targets: Tensor, task: _Task, num_classes: int) -> Tensor:
    """Return weights (K,) that let each class count the same, however many images it has.

    Args:
        targets: Classes (N,) or multi-hot (N, K) of the training images.
        task: For multiclass, inverse frequencies whose mean over the images is 1; for multilabel, images without the
            label per image with it, which is the weight of a positive in `BinaryCrossEntropy`.
        num_classes: K.

    Returns:
        float32 weights; 1 for a class that has no training image, or a label that all or none have.

    Source: King and Zeng 2001, Logistic Regression in Rare Events Data, section 4.
    """
    if task == "multilabel":
        positive = targets.double().sum(dim=0)
        negative = len(targets) - positive
        weights = torch.where((positive > 0) & (negative > 0), negative / positive.clamp(min=1), 1.0)
        return weights.float()
    counts = torch.bincount(targets.long(), minlength=num_classes).double()
    present = (counts > 0).sum()
    weights = torch.where(counts > 0, len(targets) / (present * counts.clamp(min=1)), 1.0)
    return weights.float()


def _checked_smoothing(label_smoothing: float) -> float:
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"loss.label_smoothing={label_smoothing} must be at least 0 and below 1; 0.1 is usual.")
    return label_smoothing
