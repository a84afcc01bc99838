"""Augmentation parameters, drawn before an image is decoded, and what of its file a worker hands on for that.

Every draw is the one that timm's steps make; files that only PIL decodes rightly are handed on as pixels.
"""

from typing import Any, NamedTuple

import torch
from PIL.JpegImagePlugin import JpegImageFile
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import CenterCropOrPad, RandomCropOrPad
from torch import Tensor
from torchvision.transforms import (
    CenterCrop,
    ColorJitter,
    GaussianBlur,
    RandomApply,
    RandomHorizontalFlip,
    RandomVerticalFlip,
)

from finetune.config.settings.training_groups import Augment
from finetune.data.augmentation.operations import QuarterTurn, Rotation
from finetune.data.color_modes import MODES
from finetune.data.decoding import DecodedImage, Region, Size
from finetune.data.resizing import CHANNELS, SHARED, choose_region, own_bytes, resize
from finetune.data.transforms import InputSpec, Transform
from finetune.errors import ConfigError

FRAMES = (CenterCrop, CenterCropOrPad, RandomCropOrPad)
_COLOURS = ("brightness", "contrast", "saturation", "hue")
END_OF_IMAGE = b"\xff\xd9"
# components of a JPEG that is stored without conversion to luminance and chroma
STORED_RGB = tuple(b"RGB")


class AugmentParams(NamedTuple):
    """All that is drawn for an image, in the order in which it is done.

    Attributes:
        region: What of the picture is shown, and at what size before it is framed.
        mirrored: Whether left and right change places.
        inverted: Whether top and bottom change places.
        turns: By how many right angles it is turned, counter-clockwise.
        rotation: By how many degrees it is turned, clockwise, and enlarged to fill the frame.
        colours: What of the colours is changed (one of COLOURS), each by a factor, one after the other.
        blur: Standard deviation of a Gaussian blur in pixels; 0 for none.
        erased: Top, left, height and width of what is replaced by noise; None for nothing.
        corner: Top and left of the frame in the resized region, below 0 where it is padded; None for the centre.
    """

    region: Region
    mirrored: bool = False
    inverted: bool = False
    turns: int = 0
    rotation: float = 0.0
    colours: tuple[tuple[str, float], ...] = ()
    blur: float = 0.0
    erased: tuple[int, int, int, int] | None = None
    corner: tuple[int, int] | None = None


class ParamsSource(NamedTuple):
    """What an image is made of.

    Attributes:
        name: What to call it in an error.
        size: Width and height of the whole picture.
        plan: What is done with it.
        values: uint8; the bytes of a JPEG file (N,), or the region's pixels at its final size (C, H, W), 0 to 255.
        noise: What is put in place of the erased rectangle (C, H, W), or nothing (0,).
    """

    name: str
    size: Size
    plan: AugmentParams
    values: Tensor
    noise: Tensor

    @property
    def is_file(self) -> bool:
        """Whether the values are a file's bytes."""
        return self.values.ndim == 1


def check_device_pixels(spec: InputSpec, augment: Augment, *, pixel_cache: bool) -> None:
    """Check that images can be made on the device that trains.

    Raises:
        ConfigError: Names the setting that only PIL can follow, or that is about pixels in files.
    """
    refused = {
        "data.exact_pixels=true": spec.exact,
        "data.pixel_cache=true": pixel_cache,
        f"augment.rand_augment={augment.rand_augment}": augment.enabled and augment.rand_augment is not None,
        "augment.trivial_augment=true": augment.enabled and augment.trivial_augment,
        f"model.interpolation={spec.interpolation}": spec.interpolation not in SHARED,
        f"model.in_chans={spec.channels}": spec.channels not in CHANNELS.values(),
    }
    for setting, found in refused.items():
        if found:
            raise ConfigError(
                f"data.device_pixels=true makes images on the device that trains, which cannot be done with {setting}. "
                "Change that, or set data.device_pixels=false."
            )


class ParamsSampler:
    """Draws what a transform would do, with the draws of its own steps, and reads what that needs."""

    def __init__(self, transform: Transform) -> None:
        """Take the steps of a transform whose settings have been checked."""
        self.spec = transform.spec
        self.first = transform.first
        self.varying = [step for step in transform.middle.transforms if not isinstance(step, FRAMES[:2])]
        self.erasing = next((step for step in transform.last.transforms if isinstance(step, RandomErasing)), None)

    def source(self, picture: DecodedImage) -> ParamsSource:
        """Return what the image of a picture is made of: its file's bytes, else pixels as they are made without a GPU.

        Raises:
            UnreadableError: It cannot be decoded.
        """
        plan = self.varied(choose_region(self.first, picture.size))
        erased, noise = self.erased()
        content = plain_jpeg(picture)
        if content is None:
            image = resize(picture.cutout(plan.region), plan.region.size, self.spec.interpolation)
            values = own_bytes(image, self.spec.channels)
        else:
            values = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return ParamsSource(picture.name, picture.size, plan._replace(erased=erased), values, noise)

    def varied(self, region: Region) -> AugmentParams:
        """Return a plan for a region, with all that the steps draw, in their order."""
        drawn: dict[str, Any] = {}
        for step in self.varying:
            drawn |= self.drawn(step, region)
        return AugmentParams(region, **drawn)

    def drawn(self, step: torch.nn.Module, region: Region) -> dict[str, Any]:
        """Return what a step draws, by its name in a plan."""
        match step:
            case RandomCropOrPad():
                resized = torch.empty((1, region.size[1], region.size[0]), device="meta")
                return {"corner": step.get_params(resized, step.size)}  # type: ignore[no-untyped-call]
            case RandomHorizontalFlip():
                return {"mirrored": bool(torch.rand(1) < step.p)}
            case RandomVerticalFlip():
                return {"inverted": bool(torch.rand(1) < step.p)}
            case QuarterTurn():
                return {"turns": step.draw()}
            case Rotation():
                return {"rotation": step.draw()}
            case RandomApply():
                (blur,) = step.transforms
                assert isinstance(blur, GaussianBlur)
                return {"blur": blur.get_params(*blur.sigma)} if step.p >= torch.rand(1) else {}
        assert isinstance(step, ColorJitter)
        order, *factors = step.get_params(step.brightness, step.contrast, step.saturation, step.hue)
        return {"colours": tuple((_COLOURS[i], factors[i]) for i in order.tolist() if factors[i] is not None)}

    def erased(self) -> tuple[tuple[int, int, int, int] | None, Tensor]:
        """Return the rectangle that timm's step erases, if any, and the noise that it puts there."""
        if self.erasing is None:
            return None, torch.empty(0)
        canvas = torch.full((self.spec.channels, self.spec.height, self.spec.width), torch.nan)
        self.erasing(canvas)
        places = canvas[0].isfinite().nonzero()
        if not len(places):
            return None, torch.empty(0)
        (top, left), (bottom, right) = places[0].tolist(), (places[-1] + 1).tolist()
        return (top, left, bottom - top, right - left), canvas[:, top:bottom, left:right]


def plain_jpeg(picture: DecodedImage) -> bytes | None:
    """Return the bytes of a file that any JPEG decoder decodes as PIL does, or None where PIL has to.

    That is a whole upright JPEG of 8 bits, grey or YCbCr, with the channels that are wanted. The others are turned by
    EXIF, in CMYK, stored as RGB, grey where colours are wanted or the reverse, of several pictures, or cut short.
    """
    image = picture.image
    if not isinstance(image, JpegImageFile) or picture.content is None:
        return None
    as_wanted = image.format == "JPEG" and image.mode == MODES[picture.channels] and image.bits == 8
    components = tuple(layer[0] for layer in image.layer)
    converted = image.info.get("adobe_transform") != 0 and components != STORED_RGB
    whole = picture.content.rfind(END_OF_IMAGE, image.fp.tell()) >= 0  # type: ignore[union-attr]
    return picture.content if as_wanted and converted and picture.turn is None and whole else None
