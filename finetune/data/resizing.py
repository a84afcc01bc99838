"""Resizing, the first step of timm's transforms, on a region that may be decoded at a fraction of its size."""

import math
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation, ResizeKeepRatio, str_to_pil_interp
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.dlpack import from_dlpack
from torchvision.transforms import Resize

from finetune.data.decoding import Cutout, DecodedImage, Region, Size

Step = Callable[[Image.Image], Image.Image]
# interpolations that torch computes as PIL does, up to rounding
SHARED = ("bicubic", "bilinear")
# of modes that torch resizes as PIL does; PIL weighs colours by their opacity
CHANNELS = {"L": 1, "RGB": 3}
# take pixels whole or not at all, which another size has not where they were
UNSCALABLE = ("nearest", "box")


def fast_resize(step: Step, picture: DecodedImage, interpolation: str) -> Image.Image:
    """Return what a step makes of a picture, within a tolerance of what it makes of the whole decoded image.

    On photos the values (0 to 255) differ by less than 1 on average and 24 at most where a large JPEG is decoded at a
    fraction of its size; elsewhere, by rounding, by less than 0.3 on average and 8 at most.

    Args:
        step: The first of timm's transforms.
        picture: What it is to be applied to.
        interpolation: Its interpolation; nearest and box are left to the step itself.
    """
    if interpolation in UNSCALABLE:
        return step(picture.whole())
    region = choose_region(step, picture.size)
    return resize(picture.cutout(region), region.size, interpolation)


def choose_region(step: Step, size: Size) -> Region:
    """Return which part of an image a step resizes, and to which size, drawing at random where the step does.

    Args:
        step: The first of timm's transforms.
        size: Width and height of the image.
    """
    width, height = size
    whole = (0, 0, width, height)
    blank = torch.empty((1, height, width), device="meta")
    if isinstance(step, RandomResizedCropAndInterpolation):
        top, left, rows, columns = step.get_params(blank, step.scale, step.ratio)  # type: ignore[no-untyped-call]
        return Region((left, top, left + columns, top + rows), (step.size[1], step.size[0]))
    if isinstance(step, ResizeKeepRatio):
        scaling = (step.random_scale_prob, step.random_scale_range, step.random_scale_area)
        shaping = (step.random_aspect_prob, step.random_aspect_range)
        drawn = step.get_params(blank, step.size, step.longest, *scaling, *shaping)  # type: ignore[no-untyped-call]
        rows, columns = (max(1, side) for side in drawn)
        return Region(whole, (columns, rows))
    assert isinstance(step, Resize)
    if isinstance(step.size, int):
        short, long = step.size, int(step.size * max(size) / min(size))
        return Region(whole, (short, long) if width <= height else (long, short))
    return Region(whole, (step.size[1], step.size[0]))


def resize(cutout: Cutout, size: Size, interpolation: str) -> Image.Image:
    """Return the region of a cutout, resized; what lies outside it has no influence but by parts of pixels.

    torch's kernel is several times as fast as PIL's, but a region must begin where a pixel does.
    """
    image, (left, top, right, bottom) = cutout
    outer = (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
    if (left, top) == outer[:2] and interpolation in SHARED and image.mode in CHANNELS:
        part = to_bytes(image)[:, outer[1] : outer[3], outer[0] : outer[2]]
        return from_bytes(resize_bytes(part, (right - left, bottom - top), size, interpolation), image.mode)
    box = (left - outer[0], top - outer[1], right - outer[0], bottom - outer[1])
    resample = str_to_pil_interp(interpolation)  # type: ignore[no-untyped-call]
    return image.crop(outer).resize(size, resample, box=box)


def resize_bytes(part: Tensor, extent: tuple[float, float], size: Size, interpolation: str) -> Tensor:
    """Return the upper left of some bytes (C, H, W), up to an extent in pixels, resized to (C, height, width)."""
    lines = part.permute(1, 2, 0)
    batch = lines[None].permute(0, 3, 1, 2)  # so that torch sees that channels are last, and keeps them there
    if extent == (part.shape[2], part.shape[1]):
        return interpolate(batch, (size[1], size[0]), mode=interpolation, antialias=True)[0]
    factors = [
        covering_factor(wanted, length, given)
        for wanted, length, given in zip(reversed(size), reversed(extent), part.shape[1:], strict=True)
    ]
    return interpolate(batch, scale_factor=factors, mode=interpolation, antialias=True)[0, :, : size[1], : size[0]]


def covering_factor(size: int, extent: float, given: int) -> float:
    """Return what an extent of at most `given` pixels is multiplied by, so that these become at least `size` pixels.

    torch makes as many pixels as are whole in their product, which may be a hair below a whole number.
    """
    factor = size / extent
    while math.floor(given * factor) < size:
        factor = math.nextafter(factor, math.inf)
    return factor


def to_bytes(image: Image.Image) -> Tensor:
    """Return an image as (C, H, W), 0 to 255, without a copy where it can be; RGB has a fourth channel as padding.

    The image must outlive the tensor: PIL's memory may not be freed by a thread of torch.
    """
    try:
        values = pa.array(image)
        pixels = from_dlpack(values if image.mode == "L" else values.flatten())
    except ValueError:  # its lines are not in one block of memory
        pixels = torch.from_numpy(np.array(image))
    return pixels.view(image.height, image.width, -1).permute(2, 0, 1)


def own_bytes(image: Image.Image, channels: int) -> Tensor:
    """Return an image as (C, H, W), 0 to 255, in memory of its own."""
    return to_bytes(image)[:channels].clone(memory_format=torch.contiguous_format)


def from_bytes(pixels: Tensor, mode: str) -> Image.Image:
    """Return (C, H, W), 0 to 255, as an image; a fourth channel of RGB is padding, which PIL takes without sorting."""
    lines = pixels.permute(1, 2, 0).contiguous()
    height, width, channels = lines.shape
    return Image.frombytes(mode, (width, height), lines.numpy().data, "raw", "RGBX" if channels == 4 else mode)


class Scale:
    """Bytes (C, H, W) to values of mean 0 and standard deviation 1, in one pass each for factor and offset."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Take mean and std per channel, of values in [0, 1]."""
        deviation = torch.tensor(std)[:, None, None]
        self.factor = 1 / (255 * deviation)
        self.offset = torch.tensor(mean)[:, None, None] / deviation

    def __call__(self, image: Image.Image) -> Tensor:
        """Return an image as (C, H, W), normalised."""
        return to_bytes(image)[: len(self.factor)].contiguous().float().mul_(self.factor).sub_(self.offset)
