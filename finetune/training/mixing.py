"""Mixup and CutMix: each image, or its features, of a training batch is mixed with another one, its target likewise."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2

from finetune.config.settings.training_groups import Augment

MixedBatch = dict[str, Tensor]


def build_mixing(
    augment: Augment, *, num_classes: int, task: Literal["multiclass", "multilabel"]
) -> Callable[[MixedBatch], MixedBatch] | None:
    """Return what mixes a training batch, or None where the augmentation asks for none.

    With both alphas above 0, each batch gets one of the two at even odds. All that is random is drawn from torch's
    global generator.

    Args:
        augment: Its `mixup` and `cutmix` are the alphas of the Beta distribution of the shares; 0 turns one off.
        num_classes: K.
        task: For multiclass, targets (B,) become class probabilities (B, K); for multilabel, multi-hot targets (B, K)
            become shares in [0, 1].

    Returns:
        A function of a batch with image (B, C, H, W) and target; a batch of any size, odd ones too, can be mixed.

    Source: Zhang et al. 2018, mixup, section 2; Yun et al. 2019, CutMix, section 3.
    """
    if not augment.enabled:
        return None
    classes = num_classes if task == "multiclass" else None
    choices: list[v2.Transform] = []
    if augment.mixup > 0:
        choices.append(v2.MixUp(alpha=augment.mixup, num_classes=classes))
    if augment.cutmix > 0:
        choices.append(v2.CutMix(alpha=augment.cutmix, num_classes=classes))
    return Mixing(choices) if choices else None


class FeatureMixing:
    """Mixes the features of each image with those of its neighbour in the batch, by one share for all.

    Source: Verma et al. 2019, Manifold Mixup, section 2, at the last layer before the head.
    """

    def __init__(self, alpha: float, num_classes: int) -> None:
        """Hold the alpha of the Beta distribution of the shares, and the number of classes."""
        self.alpha = alpha
        self.num_classes = num_classes

    def __call__(self, batch: MixedBatch) -> MixedBatch:
        """Return the batch with mixed features (B, F) and target (B, K); the given one is left as it is.

        What is random is drawn from torch's global generator.
        """
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        target = batch["target"]
        if target.ndim == 1:
            target = torch.nn.functional.one_hot(target, self.num_classes).float()
        mixed = {"features": batch["features"], "target": target}
        return {**batch, **{name: share * value + (1 - share) * value.roll(1, 0) for name, value in mixed.items()}}


class Mixing:
    """Mixes each image with its neighbour in the batch, by one of several transforms."""

    def __init__(self, choices: list[v2.Transform]) -> None:
        """Hold the transforms, of which each batch gets one."""
        self.choices = choices

    def __call__(self, batch: MixedBatch) -> MixedBatch:
        """Return the batch with mixed image and target; the given one is left as it is."""
        image = batch["image"]
        choice = int(torch.randint(len(self.choices), ())) if len(self.choices) > 1 else 0
        mixed, target = self.choices[choice](image, batch["target"])
        if image.is_contiguous(memory_format=torch.channels_last):
            mixed = mixed.contiguous(memory_format=torch.channels_last)
        return {**batch, "image": mixed, "target": target}
