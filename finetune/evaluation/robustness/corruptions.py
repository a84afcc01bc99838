"""Corruptions: noise, blur, light and loss, each in five severities."""

import hashlib
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.functional import conv2d, pad
from torchvision.transforms.functional import gaussian_blur

from finetune.errors import ConfigError, nearest

Pixels = npt.NDArray[np.float32]  # (H, W, C) in [0, 1], C = 1 or 3
SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 224  # pixels of the images that the widths of blurs are meant for


def gaussian_noise(pixels: Pixels, strength: float, draw: np.random.Generator) -> Pixels:
    """Add noise of a standard deviation, as in poor light."""
    return pixels + draw.normal(0, strength, pixels.shape).astype(np.float32)


def shot_noise(pixels: Pixels, strength: float, draw: np.random.Generator) -> Pixels:
    """Count light in particles, so many where an image is white."""
    return (draw.poisson(pixels * strength) / strength).astype(np.float32)


def impulse_noise(pixels: Pixels, strength: float, draw: np.random.Generator) -> Pixels:
    """Turn a share of all values black or white, as broken bits do."""
    chance = draw.random(pixels.shape)
    return np.where(chance < strength / 2, 0, np.where(chance < strength, 1, pixels)).astype(np.float32)


def blur(pixels: Pixels, strength: float, draw: np.random.Generator) -> Pixels:
    """Blur with a Gaussian, whose standard deviation is given in pixels of an image of SIDE."""
    sigma = strength * min(pixels.shape[:2]) / SIDE
    # a kernel reaches three deviations, and not beyond what is mirrored at the border
    reach = min(math.ceil(3 * sigma), min(pixels.shape[:2]) - 1)
    if reach < 1:
        return pixels
    blurred: torch.Tensor = gaussian_blur(to_planes(pixels), [2 * reach + 1] * 2, [sigma, sigma])
    return from_planes(blurred)


def motion_blur(pixels: Pixels, strength: float, draw: np.random.Generator) -> Pixels:
    """Blur along a line of any direction, whose half length is given in pixels of an image of SIDE."""
    kernel = line_kernel(strength * min(pixels.shape[:2]) / SIDE, draw.uniform(0, math.pi))
    reach = kernel.shape[0] // 2
    if reach < 1:
        return pixels
    planes = pad(to_planes(pixels)[:, None], [reach] * 4, mode="replicate")
    return from_planes(conv2d(planes, kernel[None, None])[:, 0])


def line_kernel(half: float, angle: float) -> torch.Tensor:
    """Return the weights (K, K), which add up to 1, of a line through the centre: its half length and its direction."""
    reach = math.ceil(half)
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1)
    for place in np.linspace(-half, half, 8 * reach + 1):
        down, across = reach + place * math.sin(angle), reach + place * math.cos(angle)
        kernel[min(max(round(down), 0), 2 * reach), min(max(round(across), 0), 2 * reach)] += 1
    return kernel / kernel.sum()


def brightness(pixels: Pixels, strength: float, draw: np.random.Generator) -> Pixels:
    """Add to the value of hue, saturation and value, which leaves the first two as they are; below 0 it darkens."""
    value = pixels.max(axis=2, keepdims=True)
    changed = np.clip(value + strength, 0, 1)
    found: Pixels = np.where(value > 0, pixels * changed / np.maximum(value, np.float32(1e-6)), changed)
    return found.astype(np.float32)


def contrast(pixels: Pixels, strength: float, draw: np.random.Generator) -> Pixels:
    """Keep a share of the distance of each channel from its mean."""
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    changed: Pixels = (pixels - mean) * np.float32(strength) + mean
    return changed


def pixelate(pixels: Pixels, strength: float, draw: np.random.Generator) -> Pixels:
    """Store a share of the pixels of each side, and enlarge them again."""
    image = to_image(pixels)
    small = (max(1, int(image.width * strength)), max(1, int(image.height * strength)))
    return to_pixels(image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX))


def jpeg(pixels: Pixels, strength: float, draw: np.random.Generator) -> Pixels:
    """Store as JPEG, in a quality of 1 to 95."""
    stream = io.BytesIO()
    to_image(pixels).save(stream, "JPEG", quality=int(strength))
    return to_pixels(Image.open(stream))


Corruption = Callable[[Pixels, float, np.random.Generator], Pixels]
# by name: what is done, and how strongly in each of SEVERITIES
CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, ...]]] = {
    "gaussian_noise": (gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": (impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian_blur": (blur, (1, 2, 3, 4, 6)),
    "motion_blur": (motion_blur, (3, 5, 8, 12, 15)),
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "darkness": (brightness, (-0.1, -0.2, -0.3, -0.4, -0.5)),
    "contrast": (contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": (pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": (jpeg, (25, 18, 15, 10, 7)),
}


def corrupt(image: Image.Image, name: str, severity: int, *, seed: int, key: str) -> Image.Image:
    """Return an image of the network's size with something wrong; its opacity, where it has one, stays as it is.

    Args:
        image: In mode L, RGB or RGBA.
        name: One of CORRUPTIONS.
        severity: One of SEVERITIES.
        seed: What is drawn depends on it and on all other arguments but the pixels.
        key: Tells the image from others.
    """
    make, strengths = CORRUPTIONS[name]
    drawn = hashlib.blake2b(f"{seed}/{name}/{severity}/{key}".encode(), digest_size=8).digest()
    colours = image.convert("RGB") if image.mode == "RGBA" else image
    generator = np.random.default_rng(int.from_bytes(drawn, "big"))
    found = to_image(make(to_pixels(colours), strengths[severity - 1], generator))
    if image.mode == "RGBA":
        found.putalpha(image.getchannel("A"))
    return found


def check_corruptions(names: Sequence[str] | None, severities: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """Return what is to be done with each image, as pairs of name and severity; all that there are by default.

    Raises:
        ConfigError: One is not known, or there is none.
    """
    chosen = tuple(CORRUPTIONS) if names is None else tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in CORRUPTIONS:
            raise ConfigError(
                f"corruptions names '{name}', which is not one of {', '.join(CORRUPTIONS)}.{nearest(name, CORRUPTIONS)}"
            )
    for severity in severities:
        if severity not in SEVERITIES:
            raise ConfigError(f"severities holds {severity}; they go from 1 (slight) to 5 (severe).")
    if not chosen or not severities:
        raise ConfigError(
            "corruptions and severities must not be empty. Use severities=[1,3,5], and corruptions=null for all."
        )
    return tuple((name, severity) for name in chosen for severity in sorted(set(severities)))


def to_pixels(image: Image.Image) -> Pixels:
    """Return an image as (H, W, C), 0 to 1."""
    values: Pixels = np.asarray(image, np.float32) / np.float32(255)
    return values[..., None] if values.ndim == 2 else values


def to_image(pixels: Pixels) -> Image.Image:
    """Return (H, W, C), with what lies outside of 0 to 1 cut off, as an image."""
    values = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


def to_planes(pixels: Pixels) -> torch.Tensor:
    """Return (H, W, C) as (C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def from_planes(planes: torch.Tensor) -> Pixels:
    """Return (C, H, W) as (H, W, C)."""
    pixels: Pixels = planes.permute(1, 2, 0).numpy()
    return pixels
