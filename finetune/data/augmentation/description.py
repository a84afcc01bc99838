"""Augmentation in words, so that people who have not written the settings can judge them."""

import re
from typing import NamedTuple

from finetune.config.settings.training_groups import Augment

ALWAYS, NEVER = 1.0, 0.0


class Change(NamedTuple):
    """Something that is done with an image.

    Attributes:
        what: Its name.
        how: In a few words.
        probability: Of being done with an image, 0 to 1.
        setting: The key that decides it.
    """

    what: str
    how: str
    probability: float
    setting: str


def describe_augmentation(augment: Augment, *, crop_mode: str) -> list[Change]:
    """Return all that may be done with a training image, in order; what is not on has the probability 0."""
    if not augment.enabled:
        return []
    return [*shape_changes(augment, crop_mode), *pixel_changes(augment), *mixtures(augment)]


def shape_changes(augment: Augment, crop_mode: str) -> list[Change]:
    """Return what moves pixels."""
    low, high = augment.crop_scale
    narrow, wide = augment.crop_ratio
    share = f"{low:.0%} to {high:.0%}" if low < high else f"{low:.0%}"
    ratio = f"aspect ratio {narrow:.2f} to {wide:.2f}" if narrow < wide else f"aspect ratio {narrow:.2f}"
    crop = {
        "center": f"a part of {share} of the image's area, {ratio}",
        "squash": f"a part of {share} of the squashed image's area, {ratio} of that",
        "border": f"enlarged as a part of {share} of the framed image's area would be, {ratio}, laid anywhere",
    }[crop_mode]
    angle = f"by at most {augment.rotate:g} degrees either way, enlarged to fill the frame"
    return [
        Change("random crop", crop, ALWAYS if crops(augment) else NEVER, "augment.crop_scale"),
        Change("mirrored", "left and right change places", augment.horizontal_flip, "augment.horizontal_flip"),
        Change("upside down", "top and bottom change places", augment.vertical_flip, "augment.vertical_flip"),
        Change("quarter turns", "by 0, 90, 180 or 270 degrees, equally likely",
               ALWAYS if augment.quarter_turns else NEVER, "augment.quarter_turns"),
        Change("rotation", angle, ALWAYS if augment.rotate else NEVER, "augment.rotate"),
    ]  # fmt: skip


def crops(augment: Augment) -> bool:
    """Return whether anything but the whole image, in its own shape, may be shown."""
    return tuple(augment.crop_scale) != (1.0, 1.0) or tuple(augment.crop_ratio) != (1.0, 1.0)


def pixel_changes(augment: Augment) -> list[Change]:
    """Return what changes the values of pixels."""
    strength = augment.color_jitter
    policy = augment.rand_augment
    return [
        Change("TrivialAugment", "one of fourteen changes of shape or colour, drawn with its strength; one is none",
               ALWAYS if augment.trivial_augment else NEVER, "augment.trivial_augment"),
        Change("RandAugment", of_policy(policy) if policy else "", ALWAYS if policy else NEVER, "augment.rand_augment"),
        Change("colours", f"brightness, contrast and saturation each by a factor of {max(0, 1 - strength):.2g} to "
               f"{1 + strength:.2g}", ALWAYS if strength else NEVER, "augment.color_jitter"),
        Change("blur", "Gaussian, with a standard deviation of 0.1 to 2 pixels", augment.blur, "augment.blur"),
        Change("erasing", "a rectangle of 2 % to 33 % of the area becomes noise", augment.erase, "augment.erase"),
    ]  # fmt: skip


def of_policy(policy: str) -> str:
    """Return in words what RandAugment does, of timm's notation, such as rand-m9-n2-mstd0.5."""
    number = re.search(r"-n(\d+)", policy)
    strength = re.search(r"-m(\d+(\.\d+)?)", policy)
    chance = re.search(r"-p(\d*\.?\d+)", policy)
    count = int(number[1]) if number else 2
    of_ten = f" of a strength of {strength[1]} in 10" if strength else ""
    each = f"{count} changes{of_ten} are" if count != 1 else f"1 change{of_ten} is"
    return f"{each} drawn, each made with a probability of {float(chance[1]) if chance else 0.5:g} ({policy})"


def mixtures(augment: Augment) -> list[Change]:
    """Return what mixes the images of a batch, which gets one of the two where both are on."""
    both = augment.mixup > 0 and augment.cutmix > 0
    rest = "with another of its batch, and their labels likewise; the share is drawn from Beta"
    return [
        Change(name, f"{how} {rest}({alpha:g}, {alpha:g})", 0.0 if alpha <= 0 else 0.5 if both else 1.0, setting)
        for name, how, alpha, setting in (
            ("Mixup", "blended", augment.mixup, "augment.mixup"),
            ("CutMix", "a rectangle is exchanged", augment.cutmix, "augment.cutmix"),
        )
    ]
