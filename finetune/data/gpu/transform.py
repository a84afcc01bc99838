"""Decoding and augmentation on the GPU: batches made from files of which only the header was read before."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import torch
from timm.data.transforms import CenterCropOrPad, RandomCropOrPad, crop_or_pad
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision import io
from torchvision.transforms import CenterCrop, GaussianBlur, RandomApply, functional

from finetune.data.augmentation.operations import rotated
from finetune.data.decoding import DecodedImage
from finetune.data.gpu.params import FRAMES, AugmentParams, ParamsSampler, ParamsSource
from finetune.data.resizing import Scale, own_bytes
from finetune.data.transforms import InputSpec, Transform

log = logging.getLogger(__name__)

# of what is made; kept features of another format are not used
FORMAT = 1
Frame: TypeAlias = CenterCrop | CenterCropOrPad | RandomCropOrPad
READ_MODES = {1: "GRAY", 3: "RGB"}
ADJUST = {
    "brightness": functional.adjust_brightness,
    "contrast": functional.adjust_contrast,
    "saturation": functional.adjust_saturation,
    "hue": functional.adjust_hue,
}
# pixels that are decoded together, which bounds the memory that they take
TOGETHER = 64 * 10**6


class DeviceTransform:
    """timm's transform in two halves: a worker reads a file and draws, and the device that trains makes the image."""

    def __init__(self, transform: Transform) -> None:
        """Take a transform whose settings `check_device_pixels` has accepted."""
        self.planner = ParamsSampler(transform)
        steps = transform.middle.transforms
        frame = next((step for step in steps if isinstance(step, FRAMES)), None)
        blurs = (step.transforms[0] for step in steps if isinstance(step, RandomApply))
        blur: GaussianBlur | None = next(blurs, None)
        self.maker = BatchTransform(transform.spec, frame, tuple(blur.kernel_size) if blur is not None else ())

    def apply(self, picture: DecodedImage) -> ParamsSource:
        """Return what the image of a picture is made of, with all that is random drawn."""
        return self.planner.source(picture)

    def join(self, sources: Sequence[ParamsSource]) -> "DeferredImages":
        """Return a batch of images that are still to be made."""
        return DeferredImages(sources, self.maker)


class DeferredImages:
    """The images of a batch before they are made: what stands in their place until they are moved to a device.

    All values lie in one block of memory and all noise in another, since each block that a worker process hands on
    takes a file handle.
    """

    def __init__(self, sources: Sequence[ParamsSource], maker: "BatchTransform") -> None:
        """Take what each image is made of, and what makes them."""
        self.values = torch.cat([source.values.reshape(-1) for source in sources])
        self.noise = torch.cat([source.noise.reshape(-1) for source in sources])
        self.facts = [(*source[:3], source.values.shape, source.noise.shape) for source in sources]
        self.maker = maker

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.facts)

    def sources(self) -> list[ParamsSource]:
        """Return what each image is made of."""
        values = torch.split(self.values, [shape.numel() for *_, shape, _ in self.facts])
        noise = torch.split(self.noise, [shape.numel() for *_, shape in self.facts])
        parts = zip(self.facts, values, noise, strict=True)
        return [
            ParamsSource(name, size, plan, part.view(shape), patch.view(place))
            for (name, size, plan, shape, place), part, patch in parts
        ]

    def to(
        self,
        device: torch.device | str,
        *,
        non_blocking: bool = False,
        memory_format: torch.memory_format = torch.preserve_format,
    ) -> Tensor:
        """Return the images (B, C, H, W), normalised, made on a device, as a tensor would be moved there.

        Raises:
            UnreadableError: One cannot be decoded.
        """
        return self.maker.make(self.sources(), torch.device(device)).to(memory_format=memory_format)


@dataclass(frozen=True)
class BatchTransform:
    """Makes images as timm does, but decodes whole JPEGs and resizes real numbers, all on one device.

    On 396 photos of half a megapixel, at 224 pixels, the values (0 to 255) differ from timm's own by less than 0.001 on
    average and 2 at most in evaluation, by 0.03 and 16 in training, and by 0.3 and 17 with changed colours; from those
    of the usual way by 0.01 and 8, by 0.2 and 7 with changed colours, and by what `fast_resize` says where that decodes
    a large JPEG at a fraction of its size. So it is with the CPU's decoder of JPEGs: a GPU's own rounds otherwise, by
    how much has not been measured.

    Attributes:
        spec: What the weights expect.
        frame: The step that cuts or pads the resized region to their size; None where it has it.
        kernel: Width and height of the kernel of a blur, in pixels; empty where nothing is blurred.
    """

    spec: InputSpec
    frame: Frame | None
    kernel: tuple[int, ...] = ()

    @torch.no_grad()
    def make(self, sources: Sequence[ParamsSource], device: torch.device) -> Tensor:
        """Return images (B, C, H, W), normalised; each depends on its own source alone.

        Raises:
            UnreadableError: One cannot be decoded.
        """
        plans = [source.plan for source in sources]
        works = device if device.type == "cuda" else torch.device("cpu")  # others have no decoder of their own
        regions = zip(self.regions(sources, works), plans, strict=True)
        shown = torch.stack([fit_frame(region, self.frame, plan.corner) for region, plan in regions])
        varied = apply_blur(adjust_colours(apply_geometry(shown, plans), plans), plans, self.kernel)
        scale = Scale(self.spec.mean, self.spec.std)
        images = varied.float().mul_(scale.factor.to(works)).sub_(scale.offset.to(works))
        for image, source in zip(images, sources, strict=True):
            if source.plan.erased is not None:
                top, left, height, width = source.plan.erased
                image[:, top : top + height, left : left + width] = source.noise.to(works)
        return images.to(device)

    def regions(self, sources: Sequence[ParamsSource], device: torch.device) -> Iterator[Tensor]:
        """Yield the region (C, height, width) of each source, 0 to 255, resized."""
        for part in split_by_pixels(sources):
            files = iter(decode_jpegs([source for source in part if source.is_file], self.spec.channels, device))
            for source in part:
                finished = None if source.is_file else source.values.to(device)
                yield resize_region(next(files), source.plan, self.spec.interpolation) if finished is None else finished


def split_by_pixels(sources: Sequence[ParamsSource]) -> Iterator[list[ParamsSource]]:
    """Yield sources that may be decoded together, in order: at least one, and else no more than TOGETHER pixels."""
    part: list[ParamsSource] = []
    pixels = 0
    for source in sources:
        pixels += math.prod(source.size)
        if part and pixels > TOGETHER:
            yield part
            part, pixels = [], math.prod(source.size)
        part.append(source)
    yield part


def decode_jpegs(files: Sequence[ParamsSource], channels: int, device: torch.device) -> list[Tensor]:
    """Return the whole pictures (C, H, W), 0 to 255, of JPEG files.

    A file that the device's decoder refuses is decoded by PIL, which also says what is wrong with one that is damaged.

    Raises:
        UnreadableError: One cannot be decoded.
    """
    if not files:
        return []
    try:
        return io.decode_jpeg([file.values for file in files], READ_MODES[channels], device)  # type: ignore[no-any-return]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if len(files) > 1:
            return [pixels for file in files for pixels in decode_jpegs([file], channels, device)]
        (file,) = files
        image = DecodedImage.open(file.values.numpy().tobytes(), channels, name=file.name).whole()
        say_refused(file.name, str(error).split("\n")[0])
        return [own_bytes(image, channels).to(device)]


@cache
def say_refused(name: str, why: str) -> None:
    """Log once that a file is decoded otherwise than the others."""
    log.info("%s is decoded by PIL, since the decoder of JPEGs refuses it: %s", name, why)


def resize_region(picture: Tensor, plan: AugmentParams, interpolation: str) -> Tensor:
    """Return the region that a plan shows of a picture (C, H, W), resized, 0 to 255.

    As in PIL, lines are resized before columns, and rounded and cut off at 0 and 255 in between.
    """
    left, top, right, bottom = map(int, plan.region.box)
    width, height = plan.region.size
    part = picture[None, :, top:bottom, left:right].float()
    for size in ((bottom - top, width), (height, width)):
        part = interpolate(part, size, mode=interpolation, antialias=True).round_().clamp_(0, 255)
    return part[0].byte()


def fit_frame(region: Tensor, frame: Frame | None, corner: tuple[int, int] | None) -> Tensor:
    """Return a region (C, H, W) cut or padded to the weights' size by timm's step, if it has one.

    Args:
        region: Resized, 0 to 255.
        frame: The step.
        corner: Top and left that were drawn for it; None for the centre.
    """
    if frame is None:
        return region
    if isinstance(frame, CenterCrop):
        return frame(region)  # type: ignore[no-any-return]
    # tensors are padded by one number for all channels
    fill = torch.tensor(frame.fill, dtype=torch.int16, device=region.device).reshape(-1, 1, 1)
    if corner is None:
        padded: Tensor = CenterCropOrPad(frame.size)(region - fill) + fill
    else:
        padded = crop_or_pad(region - fill, *corner, *frame.size) + fill
    return padded.byte()


def apply_geometry(images: Tensor, plans: Sequence[AugmentParams]) -> Tensor:
    """Return images (B, C, H, W), each mirrored, upside down, turned and rotated as its plan says."""
    mirrored, inverted = (
        torch.tensor(flags, device=images.device).reshape(-1, 1, 1, 1)
        for flags in ([plan.mirrored for plan in plans], [plan.inverted for plan in plans])
    )
    images = torch.where(mirrored, images.flip(-1), images)
    images = torch.where(inverted, images.flip(-2), images)
    for row, plan in enumerate(plans):
        if plan.turns:
            images[row] = images[row].rot90(plan.turns, (-2, -1)).clone()
        if plan.rotation:
            images[row] = rotated(images[row], plan.rotation)
    return images


def apply_blur(images: Tensor, plans: Sequence[AugmentParams], kernel: Sequence[int]) -> Tensor:
    """Return images (B, C, H, W), 0 to 255, blurred in place as their plans say, by kernels of a size in pixels."""
    for row, plan in enumerate(plans):
        if plan.blur:
            images[row] = functional.gaussian_blur(images[row], list(kernel), [plan.blur, plan.blur])
    return images


def adjust_colours(images: Tensor, plans: Sequence[AugmentParams]) -> Tensor:
    """Return images (B, C, H, W), 0 to 255, with the colours changed, in place, as their plans say."""
    for row, plan in enumerate(plans):
        for name, factor in plan.colours:
            images[row] = ADJUST[name](images[row], factor)
    return images
