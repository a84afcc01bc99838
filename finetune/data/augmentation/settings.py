"""Settings of an augmentation, and which of them make sense."""

from finetune.config.settings.training_groups import Augment
from finetune.errors import ConfigError

# degrees: beyond, what is left of an image after enlarging says little
MOST_ROTATION = 45.0


# images as evaluation sees them
NOT_AUGMENTED = Augment(
    enabled=False, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), horizontal_flip=0.0, vertical_flip=0.0,
    color_jitter=0.0, rand_augment=None, erase=0.0, mixup=0.0, cutmix=0.0, quarter_turns=False, rotate=0.0, blur=0.0,
    trivial_augment=False,
)  # fmt: skip


def check_augment(augment: Augment, *, channels: int, height: int, width: int) -> None:
    """Check an augmentation of images of some channels and size in pixels.

    Raises:
        ConfigError: A setting makes no sense, or cannot be applied to such images.
    """
    check_range("crop_scale", augment.crop_scale, "shares of an image's area above 0 and at most 1", most=1.0)
    check_range("crop_ratio", augment.crop_ratio, "aspect ratios above 0")
    if not 0 <= augment.rotate <= MOST_ROTATION:
        raise ConfigError(
            f"augment.rotate={augment.rotate} must lie in 0 to {MOST_ROTATION:g} degrees. For multiples of 90 set "
            "augment.quarter_turns=true."
        )
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
