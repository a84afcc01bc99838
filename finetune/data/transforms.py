"""From a PIL image to the tensor that the weights expect, for evaluation and, augmented, for training.

It decides the transforms of single images; mixing several images of a batch is left to training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import MaybeToTensor
from torch import Tensor
from torchvision.transforms import Compose

from finetune.data.pictures import Picture
from finetune.data.resizing import Scale, fast_resize
from finetune.errors import ConfigError


@dataclass(frozen=True)
class InputSpec:
    """What images the weights were trained on.

    Attributes:
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        height: In pixels.
        width: In pixels.
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].
        interpolation: bicubic, bilinear, ...
        crop_pct: Share of the resized image that the central crop keeps.
        crop_mode: center, squash or border.
        exact: Whether images are brought to that size bit for bit as timm does it, or faster and nearly so.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str = "center"
    exact: bool = True

    @classmethod
    def stored(cls, content: Mapping[str, Any]) -> "InputSpec":
        """Return one that was stored as JSON, which has no tuples."""
        found: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
        return cls(**found)


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


class Transform:
    """timm's transform, in two parts: a picture becomes pixels of the weights' size, and these become a tensor.

    Where the input is not exact, the first step reads no more of a picture than it needs (`fast_resize` says what that
    changes), and normalisation differs from timm's by the rounding of 32 bits. Draws are the same either way.
    """

    def __init__(self, steps: Compose, spec: InputSpec) -> None:
        """Take timm's steps for the input that the weights expect."""
        self.spec = spec
        self.first, *others = steps.transforms
        border = next(number for number, step in enumerate(others) if isinstance(step, MaybeToTensor))
        self.middle = Compose(others[:border])
        normalising = 2
        scale = others[border : border + normalising] if spec.exact else [Scale(spec.mean, spec.std)]
        self.last = Compose([*scale, *others[border + normalising :]])

    def pixels(self, picture: Picture) -> Image.Image:
        """Return a picture at the weights' size: cropped, resized and, in training, varied."""
        exact = self.spec.exact
        image = self.first(picture.whole()) if exact else fast_resize(self.first, picture, self.spec.interpolation)
        varied: Image.Image = self.middle(image)
        return varied

    def tensor(self, image: Image.Image) -> Tensor:
        """Return an image of the weights' size as (C, H, W), normalised."""
        values: Tensor = self.last(image)
        return values

    def apply(self, picture: Picture) -> Tensor:
        """Return a picture as (C, H, W), normalised."""
        return self.tensor(self.pixels(picture))

    def join(self, images: Sequence[Tensor]) -> Tensor:
        """Return images as a batch (B, C, H, W)."""
        return torch.stack(list(images))

    def __call__(self, image: Image.Image) -> Tensor:
        """Return a decoded image as (C, H, W), normalised."""
        return self.apply(Picture(image, self.spec.channels, name="The image"))


def eval_transform(spec: InputSpec) -> Transform:
    """Return the transform of evaluation, which is timm's: resize, central crop, normalise to (C, H, W)."""
    steps = create_transform(
        (spec.channels, spec.height, spec.width),
        is_training=False,
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
        crop_pct=spec.crop_pct,
        crop_mode=spec.crop_mode,
    )
    return Transform(steps, spec)


def train_transform(spec: InputSpec, augment: Augment) -> Transform:
    """Return the transform of training: random crop, flips, colours, RandAugment and erasing through timm.

    It draws from the global generators of Python, NumPy and torch, which the data module seeds for each image.

    Raises:
        ConfigError: RandAugment is misspelt, or asked for images with transparency, which it cannot change.
    """
    if not augment.enabled:
        return eval_transform(spec)
    if augment.rand_augment and spec.channels == 4:
        raise ConfigError("augment.rand_augment works on grey and RGB images, not on 4 channels. Set it to null.")
    options: dict[str, Any] = {"color_jitter": augment.color_jitter or None, "auto_augment": augment.rand_augment}
    try:
        steps = create_transform(
            (spec.channels, spec.height, spec.width),
            is_training=True,
            scale=(augment.crop_scale[0], augment.crop_scale[1]),
            ratio=(augment.crop_ratio[0], augment.crop_ratio[1]),
            hflip=augment.horizontal_flip,
            vflip=augment.vertical_flip,
            re_prob=augment.erase,
            re_mode="pixel",
            interpolation=spec.interpolation,
            mean=spec.mean,
            std=spec.std,
            **options,
        )
    except AssertionError as error:
        raise ConfigError(
            f"augment.rand_augment={augment.rand_augment} is not known to timm. Use something like "
            "rand-m9-mstd0.5, or null."
        ) from error
    return Transform(steps, spec)
