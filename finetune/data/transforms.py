"""Transforms: from a PIL image to the tensor that the weights expect, augmented for training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import MaybeToTensor, RandomCropOrPad, ResizeKeepRatio
from timm.data.transforms_factory import transforms_imagenet_train
from torch import Tensor
from torchvision.transforms import Compose, InterpolationMode, TrivialAugmentWide

from finetune.config.settings.training_groups import Augment
from finetune.data.augmentation.operations import QuarterTurn, Rotation, SquashedCrop
from finetune.data.augmentation.settings import check_augment
from finetune.data.decoding import DecodedImage
from finetune.data.resizing import Scale, Step, fast_resize
from finetune.data.value_range import ValueRange
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
        value_range: Values of more than 8 bits that are black and white; None where there were none in training, or in
            runs of versions that guessed it of each image.
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
    value_range: ValueRange | None = None

    @classmethod
    def stored(cls, content: Mapping[str, Any]) -> "InputSpec":
        """Return one that was stored as JSON, which has no tuples."""
        found: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
        return cls(**found)

    def description(self) -> dict[str, Any]:
        """Return what of it decides the pixels that are kept in caches."""
        return {name: value for name, value in asdict(self).items() if name != "value_range" or value is not None}


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

    def pixels(self, picture: DecodedImage) -> Image.Image:
        """Return a picture at the weights' size: cropped, resized and, in training, varied."""
        exact = self.spec.exact
        image = self.first(picture.whole()) if exact else fast_resize(self.first, picture, self.spec.interpolation)
        varied: Image.Image = self.middle(image)
        return varied

    def tensor(self, image: Image.Image) -> Tensor:
        """Return an image of the weights' size as (C, H, W), normalised."""
        values: Tensor = self.last(image)
        return values

    def apply(self, picture: DecodedImage) -> Tensor:
        """Return a picture as (C, H, W), normalised."""
        return self.tensor(self.pixels(picture))

    def join(self, images: Sequence[Tensor]) -> Tensor:
        """Return images as a batch (B, C, H, W)."""
        return torch.stack(list(images))

    def __call__(self, image: Image.Image) -> Tensor:
        """Return a decoded image as (C, H, W), normalised."""
        return self.apply(DecodedImage(image, self.spec.channels, name="The image", value_range=self.spec.value_range))


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
    """Return the transform of training: random crops, flips, turns, colours, blur, policies and erasing.

    It draws from the global generators of Python, NumPy and torch, which the data module seeds for each image.

    Raises:
        ConfigError: A setting makes no sense, or cannot be applied to images of these channels and this size.
    """
    if not augment.enabled:
        return eval_transform(spec)
    check_augment(augment, channels=spec.channels, height=spec.height, width=spec.width)
    cropping, flips, colours, last = timm_steps(spec, augment)
    crop = cropping if spec.crop_mode == "center" else whole_image_crop(spec, augment)
    turns: list[Step] = [QuarterTurn()] if augment.quarter_turns else []
    turns += [Rotation(augment.rotate)] if augment.rotate else []
    policy = [trivial_augment(spec)] if augment.trivial_augment else []
    return Transform(Compose([*crop, *flips, *turns, *policy, *colours, *last]), spec)


def timm_steps(spec: InputSpec, augment: Augment) -> tuple[list[Step], list[Step], list[Step], list[Step]]:
    """Return timm's own steps: crop, flips, what changes colours, and what makes a tensor of an image.

    Raises:
        ConfigError: RandAugment is misspelt.
    """
    options: dict[str, Any] = {"color_jitter": augment.color_jitter or None, "auto_augment": augment.rand_augment}
    try:
        first, *parts = transforms_imagenet_train(
            (spec.height, spec.width),
            scale=(augment.crop_scale[0], augment.crop_scale[1]),
            ratio=(augment.crop_ratio[0], augment.crop_ratio[1]),
            hflip=augment.horizontal_flip,
            vflip=augment.vertical_flip,
            gaussian_blur_prob=augment.blur,
            force_color_jitter=True,
            re_prob=augment.erase,
            re_mode="pixel",
            interpolation=spec.interpolation,
            mean=spec.mean,
            std=spec.std,
            separate=True,
            **options,
        )
    except AssertionError as error:
        raise ConfigError(
            f"augment.rand_augment={augment.rand_augment} is not known to timm. Use something like "
            "rand-m9-mstd0.5, or null."
        ) from error
    crop, *flips = first.transforms
    colours, last = (part.transforms for part in parts)
    return [crop], flips, colours, last


def whole_image_crop(spec: InputSpec, augment: Augment) -> list[Step]:
    """Return the steps of a random crop where evaluation sees whole images: squashed, or with a border around them.

    Squashed, the crop is a part of the squashed image. With a border, the image is enlarged as much as such a crop
    would be and laid anywhere over the frame, which is filled up with the mean colour.
    """
    size = (spec.height, spec.width)
    scale, ratio = ((pair[0], pair[1]) for pair in (augment.crop_scale, augment.crop_ratio))
    if spec.crop_mode == "squash":
        return [SquashedCrop(size, scale, ratio, spec.interpolation)]  # type: ignore[no-untyped-call]
    resize = ResizeKeepRatio(  # type: ignore[no-untyped-call]
        size,
        longest=1.0,
        interpolation=spec.interpolation,
        random_scale_prob=1.0,
        random_scale_range=scale,
        random_scale_area=True,
        random_aspect_prob=1.0,
        random_aspect_range=ratio,
    )
    filling: Any = mean_colour(spec)  # timm's type is that of three channels
    return [resize, RandomCropOrPad(list(size), fill=filling)]


def mean_colour(spec: InputSpec) -> tuple[int, ...]:
    """Return what normalisation makes 0, per channel from 0 to 255, as timm rounds it."""
    return tuple(round(255 * value) for value in spec.mean)


def trivial_augment(spec: InputSpec) -> Step:
    """Return the policy that changes each image in one way, drawn with its strength.

    Source: Müller and Hutter 2021, TrivialAugment, section 3, with the wide space of strengths (table 1).
    """
    fill = [float(value) for value in mean_colour(spec)]
    step: Step = TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR, fill=fill)
    return step
