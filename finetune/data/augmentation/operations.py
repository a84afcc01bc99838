"""Augmentations that timm lacks: crops of squashed images, turns by right angles, small rotations."""

import math
from typing import Any

import torch
from PIL import Image
from PIL.Image import Transpose
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional

# counter-clockwise, by the number of right angles
_TURNS = {1: Transpose.ROTATE_90, 2: Transpose.ROTATE_180, 3: Transpose.ROTATE_270}


class SquashedCrop(RandomResizedCropAndInterpolation):
    """A random crop whose aspect ratio is one of the squashed image, as evaluation sees it with crop_mode=squash.

    A crop of the ratio 1 has the shape of the whole image, however long that is.
    """

    @staticmethod
    def get_params(
        img: Image.Image | Tensor, scale: tuple[float, float], ratio: tuple[float, float]
    ) -> tuple[int, int, int, int]:
        """Return top, left, height and width of a crop of an image; arguments as timm has them."""
        _, height, width = functional.get_dimensions(img)
        shape = width / height
        draw: Any = RandomResizedCropAndInterpolation.get_params
        found: tuple[int, int, int, int] = draw(img, scale, (ratio[0] * shape, ratio[1] * shape))
        return found


class QuarterTurn(torch.nn.Module):
    """Turns an image by 0, 90, 180 or 270 degrees, each equally likely; together with flips, in all eight ways."""

    def draw(self) -> int:
        """Return by how many right angles to turn, counter-clockwise."""
        return int(torch.randint(4, (1,)))

    def forward(self, image: Image.Image) -> Image.Image:
        """Return an image, turned; no pixel is changed."""
        turns = self.draw()
        return image.transpose(_TURNS[turns]) if turns else image


class Rotation(torch.nn.Module):
    """Turns an image by a small angle, and enlarges it as much as is needed for all of the frame to show image."""

    def __init__(self, degrees: float) -> None:
        """Take the largest angle, either way."""
        super().__init__()
        self.degrees = degrees

    def draw(self) -> float:
        """Return an angle in degrees, clockwise."""
        return float(torch.empty(1).uniform_(-self.degrees, self.degrees))

    def forward(self, image: Image.Image) -> Image.Image:
        """Return an image, rotated."""
        turned: Image.Image = functional.to_pil_image(rotated(functional.pil_to_tensor(image), self.draw()))
        return turned


def rotated(image: Tensor, degrees: float) -> Tensor:
    """Return an image (C, H, W), 0 to 255, turned clockwise, without any part of the frame left empty."""
    _, height, width = functional.get_dimensions(image)
    scale = enlargement(degrees, height, width)
    found: Tensor = functional.affine(
        image, degrees, translate=[0, 0], scale=scale, shear=[0.0, 0.0], interpolation=InterpolationMode.BILINEAR
    )
    return found


def enlargement(degrees: float, height: int, width: int) -> float:
    """Return by how much a rotated image must be enlarged to cover a frame of its own size, in pixels.

    The centres of the outermost pixels are to lie within those of the image, since beyond them there is nothing to
    interpolate; a pixel is added for rounding.
    """
    cosine, sine = math.cos(math.radians(degrees)), abs(math.sin(math.radians(degrees)))
    across = (width * cosine + height * sine) / max(1, width - 2)
    down = (height * cosine + width * sine) / max(1, height - 2)
    return max(across, down)
