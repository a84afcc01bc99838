"""Class imbalance: what each policy of `imbalance` does to draws and to the loss."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from finetune.config.compose import instantiate_target
from finetune.config.settings.checked import Target
from finetune.config.settings.data_groups import DataSettings, Imbalance
from finetune.config.settings.roots import PartsSettings
from finetune.config.settings.training_groups import Augment, BalanceSettings
from finetune.data.groups import training_balance
from finetune.data.resampling import RESAMPLED, Balance
from finetune.data.table import ImageTable, LabelTask
from finetune.errors import ConfigError, nearest
from finetune.training.losses import CrossEntropy, check_image_weights, check_task, class_weights

# policies that can balance each class of each group
GROUPED = ("class_weights", "balanced_sampler", *RESAMPLED)
# what draws of a rare class that are repeats get beside the run's own augmentation, as in augment=strong
RAND_AUGMENT, ERASE = "rand-m7-mstd0.5-inc1", 0.25


def build_resampling(imbalance: Imbalance, data: DataSettings, table: ImageTable) -> Balance:
    """Return how training images are drawn."""
    return Balance(imbalance, balanced_columns(imbalance, data, table))


def build_loss(
    target: Target, imbalance: Imbalance, data: DataSettings, balance: BalanceSettings, table: ImageTable
) -> nn.Module:
    """Return the loss, with weights or offsets of classes where the imbalance policy asks for them.

    Raises:
        ConfigError: The policy is not one of this loss and task.
    """
    options = dict[str, Any]()
    targets = torch.from_numpy(table.targets()[table.rows("train")])
    if imbalance == "class_weights" and not balanced_columns(imbalance, data, table):  # else images have weights
        options["class_weights"] = class_weights(targets, table.task, table.num_classes)
    if imbalance == "effective_number":
        options["class_weights"] = effective_weights(targets, table.task, table.num_classes, balance.beta)
    loss: nn.Module = instantiate_target(target, **options)
    check_task(loss, table.task)
    if imbalance == "logit_adjust":
        adjust_logits(loss, log_priors(targets, table), balance.tau)
    return loss


def effective_weights(targets: Tensor, task: LabelTask, num_classes: int, beta: float) -> Tensor:
    """Return weights (K,) that let classes count by the inverse of their effective numbers of images.

    Args:
        targets: Classes (N,) or multi-hot (N, K) of the training images.
        task: For multiclass, weights whose mean over the images is 1; for multilabel, the effective number of images
            without the label per that of images with it.
        num_classes: K.
        beta: From 0, where all classes count the same, to below 1; near 1 the effective number is the number.

    Returns:
        float32 weights; 1 for a class that has no training image, or a label that all or none have.

    Source: Cui et al. 2019, Class-Balanced Loss Based on Effective Number of Samples, section 4 (there the weights
    add up to the number of classes, which differs by a factor that all classes share).
    """
    if task == "multilabel":
        positive = targets.double().sum(dim=0)
        negative = len(targets) - positive
        known = (positive > 0) & (negative > 0)
        ratio = (1 - beta**negative) / torch.where(known, 1 - beta**positive, 1.0)
        return torch.where(known, ratio, 1.0).float()
    counts = torch.bincount(targets.long(), minlength=num_classes).double()
    inverse = torch.where(counts > 0, (1 - beta) / torch.where(counts > 0, 1 - beta**counts, 1.0), 0.0)
    weights = inverse * len(targets) / (inverse * counts).sum()
    return torch.where(counts > 0, weights, 1.0).float()


def log_priors(targets: Tensor, table: ImageTable) -> Tensor:
    """Return the logarithms (K,) of the classes' shares of the training images; one without any counts as one image.

    Raises:
        ConfigError: Images have several labels.
    """
    if table.task == "multilabel":
        raise ConfigError(
            "imbalance=logit_adjust needs exactly one label per image, and these images have several. Use "
            "imbalance=class_weights, or imbalance=effective_number."
        )
    counts = torch.bincount(targets.long(), minlength=table.num_classes).double().clamp(min=1)
    return (counts / counts.sum()).log().float()


def adjust_logits(loss: nn.Module, priors: Tensor, tau: float) -> None:
    """Let a loss see logits with tau times the log priors (K,) added, so that the logits are those of even classes.

    Raises:
        ConfigError: The loss is not cross-entropy.

    Source: Menon et al. 2021, Long-tail learning via logit adjustment, section 4.2 (the logit adjusted loss).
    """
    if not isinstance(loss, CrossEntropy):
        raise ConfigError(
            f"imbalance=logit_adjust is made for cross-entropy, and the loss is {type(loss).__name__}. Use "
            "loss=cross_entropy, or imbalance=class_weights."
        )
    loss.offsets = tau * priors


def build_image_weights(settings: PartsSettings, loss: nn.Module, table: ImageTable) -> Tensor | None:
    """Return what each row of the table (N,) counts in the training loss; None where all count the same.

    Raises:
        ConfigError: The loss takes no such weights, or images are mixed with each other.
    """
    columns = balanced_columns(settings.imbalance, settings.data, table)
    if not columns or settings.imbalance != "class_weights":
        return None
    check_image_weights(loss)
    augment = settings.augment
    if settings.label_noise == "mixup" or (augment.enabled and (augment.mixup > 0 or augment.cutmix > 0)):
        raise ConfigError(
            "data.balance_groups with imbalance=class_weights weighs single images, and mixup and cutmix mix "
            "them. Use imbalance=balanced_sampler, or set augment.mixup=0 augment.cutmix=0 and no label_noise=mixup."
        )
    weights = torch.ones(len(table))
    weights[torch.from_numpy(table.rows("train"))] = torch.from_numpy(training_balance(table, columns)).float()
    return weights


def balanced_columns(imbalance: Imbalance, data: DataSettings, table: ImageTable) -> tuple[str, ...]:
    """Return the group columns of which each class of each group is to count the same; none for classes alone.

    Raises:
        ConfigError: The table has no such column, or nothing says how to balance.
    """
    columns = data.balance_groups
    for column in columns:
        if column not in table.groups:
            known = f"There are: {', '.join(table.groups)}." if table.groups else "There are none."
            raise ConfigError(
                f"data.balance_groups names '{column}', which is no group column. {known} Name it in "
                f"data.group_columns=[{column}] with data=csv.{nearest(column, table.groups)}"
            )
    if columns and imbalance == "none":
        raise ConfigError(
            "data.balance_groups says what is balanced, not how. Set imbalance=balanced_sampler, or "
            "imbalance=class_weights."
        )
    if columns and imbalance not in GROUPED:
        raise ConfigError(
            f"data.balance_groups does not go with imbalance={imbalance}, which knows classes alone. Use one of "
            f"{', '.join(GROUPED)}."
        )
    return columns


def minority_augmentation(augment: Augment, *, channels: int, device_pixels: bool) -> Augment:
    """Return how draws of a rare class that are repeats are varied: as all others are, with RandAugment and erasing.

    RandAugment is left out where it cannot be: on images with transparency, or made on the device that trains.

    Raises:
        ConfigError: Nothing is augmented, or already as strongly.
    """
    if not augment.enabled:
        raise ConfigError(
            "imbalance=augment_minority augments rare classes more than others, and augment=none augments nothing. "
            "Choose augment=light, or imbalance=oversample."
        )
    can = channels != 4 and not device_pixels
    varied = augment.rand_augment or (RAND_AUGMENT if can else None)
    result = replace(augment, rand_augment=varied, erase=max(augment.erase, ERASE))
    if result == augment:
        raise ConfigError(
            "imbalance=augment_minority adds RandAugment and erasing to rare classes, and all images have both. "
            "Choose augment=light, or imbalance=oversample."
        )
    return result
