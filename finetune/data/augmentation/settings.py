"""The settings of an augmentation, and which of them make sense.

It decides what can be asked for; `transforms` makes steps of it, and mixing several images of a batch is left to
training.
"""

from dataclasses import dataclass, field

from finetune.errors import ConfigError

# settings that are shares of the images or probabilities
_SHARES = ("horizontal_flip", "vertical_flip", "blur", "erase")
# degrees: beyond, what is left of an image after enlarging says little
MOST_ROTATION = 45.0


@dataclass(frozen=True)
class Augment:
    """How training images are varied.

    Attributes:
        enabled: False trains on the images as evaluation sees them.
        crop_scale: Smallest and largest share of the image that a random crop covers.
        crop_ratio: Smallest and largest aspect ratio of the crop.
        horizontal_flip: Probability of a mirror image.
        vertical_flip: Probability of an upside-down image.
        color_jitter: Strength of changes of brightness, contrast and saturation; 0 for none.
        rand_augment: RandAugment in timm's notation, such as rand-m9-mstd0.5; None for none.
        erase: Probability that a random rectangle is replaced by noise.
        mixup: Alpha of Mixup; 0 for none.
        cutmix: Alpha of CutMix; 0 for none.
        quarter_turns: Whether images are turned by 0, 90, 180 or 270 degrees, each equally likely.
        rotate: Degrees by which images are turned at most, either way; 0 for none.
        blur: Probability of a Gaussian blur, whose standard deviation is 0.1 to 2 pixels.
        trivial_augment: Whether TrivialAugment changes each image in one way, drawn with its strength.
    """

    enabled: bool = True
    crop_scale: tuple[float, float] = field(default=(0.35, 1.0))
    crop_ratio: tuple[float, float] = field(default=(3 / 4, 4 / 3))
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    color_jitter: float = 0.0
    rand_augment: str | None = None
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    quarter_turns: bool = False
    rotate: float = 0.0
    blur: float = 0.0
    trivial_augment: bool = False


def check_augment(augment: Augment, *, channels: int, height: int, width: int) -> None:
    """Check an augmentation of images of some channels and size in pixels.

    Raises:
        ConfigError: A setting makes no sense, or cannot be applied to such images.
    """
    for name in _SHARES:
        value = getattr(augment, name)
        if not 0 <= value <= 1:
            raise ConfigError(f"augment.{name}={value} is a probability, from 0 to 1. Set augment.{name}=0 for none.")
    check_range("crop_scale", augment.crop_scale, "shares of an image's area above 0 and at most 1", most=1.0)
    check_range("crop_ratio", augment.crop_ratio, "aspect ratios above 0")
    if not 0 <= augment.rotate <= MOST_ROTATION:
        raise ConfigError(
            f"augment.rotate={augment.rotate} must lie in 0 to {MOST_ROTATION:g} degrees. For multiples of 90 set "
            "augment.quarter_turns=true."
        )
    if augment.color_jitter < 0:
        raise ConfigError(f"augment.color_jitter={augment.color_jitter} must not be negative; 0.2 to 0.4 is usual.")
    if augment.quarter_turns and height != width:
        raise ConfigError(
            f"augment.quarter_turns=true needs square images, and the network takes {height} x {width} pixels. Set "
            f"data.image_size={max(height, width)}, or augment.quarter_turns=false."
        )
    check_policies(augment, channels)


def check_range(name: str, values: tuple[float, float], meaning: str, most: float = float("inf")) -> None:
    """Check that two values are the least and the most of something."""
    if len(values) != 2 or not 0 < values[0] <= values[1] <= most:
        raise ConfigError(f"augment.{name}={list(values)} must be two {meaning}, the smaller one first.")


def check_policies(augment: Augment, channels: int) -> None:
    """Check that at most one policy draws what is done with an image, and that it can change such images."""
    asked = {"rand_augment": augment.rand_augment is not None, "trivial_augment": augment.trivial_augment}
    off = {"rand_augment": "null", "trivial_augment": "false"}
    if all(asked.values()):
        raise ConfigError(
            "augment.rand_augment and augment.trivial_augment both choose what is done with an image. Set "
            "augment.rand_augment=null, or augment.trivial_augment=false."
        )
    for name, found in asked.items():
        if found and channels == 4:
            raise ConfigError(
                f"augment.{name} works on grey and RGB images, not on 4 channels. Set augment.{name}={off[name]}."
            )
