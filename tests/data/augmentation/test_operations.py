"""Turns and rotations leave nothing empty, and whole images are cropped in their own shape."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from configured import settings_for
from photos import photo
from PIL import Image

from finetune.config.settings.training_groups import Augment
from finetune.data.augmentation.operations import Rotation, SquashedCrop, enlargement, rotated
from finetune.data.datamodule import seeded
from finetune.data.decoding import DecodedImage
from finetune.data.transforms import InputSpec, train_transform

SPEC = InputSpec(3, 60, 60, (0.4, 0.5, 0.6), (0.2,) * 3, "bicubic", 1.0, exact=False)


@pytest.mark.parametrize("degrees", [0.0, 3.0, -20.0, 45.0])
@pytest.mark.parametrize("size", [(60, 60), (40, 90)])
def test_a_rotated_image_fills_its_frame(degrees: float, size: tuple[int, int]) -> None:
    white = torch.full((3, *size), 255, dtype=torch.uint8)
    assert torch.equal(rotated(white, degrees), white)


@pytest.mark.parametrize("degrees", [5.0, -30.0])
def test_pixels_go_where_a_clockwise_rotation_brings_them(degrees: float) -> None:
    size = 81
    down, across = np.mgrid[:size, :size].astype(np.float64) - size // 2
    image = torch.from_numpy(np.round(128 + across)).to(torch.uint8).expand(1, -1, -1)
    angle, scale = math.radians(degrees), enlargement(degrees, size, size)
    # what is at (x, y) was at the place that the inverse rotation, and shrinking, brings it back to
    expected = 128 + (math.cos(angle) * across + math.sin(angle) * down) / scale
    assert np.abs(rotated(image, degrees)[0].numpy() - expected).max() < 1.1


def test_the_enlargement_of_a_square_is_the_sum_of_cosine_and_sine() -> None:
    assert enlargement(30, 10**6, 10**6) == pytest.approx(math.cos(math.pi / 6) + 0.5, abs=1e-5)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_rotations_keep_the_mode(mode: str) -> None:
    image = photo((50, 40)).convert(mode)
    assert Rotation(10.0)(image).mode == mode


def test_a_squashed_crop_of_ratio_one_has_the_shape_of_the_image() -> None:
    image = torch.empty((1, 100, 400), device="meta")
    for seed in range(50):
        with seeded(seed):
            _, _, height, width = SquashedCrop.get_params(image, (0.2, 1.0), (1.0, 1.0))
        assert width / height == pytest.approx(4, rel=0.03)
        assert 0.19 * 40_000 <= height * width <= 40_000
    assert SquashedCrop.get_params(image, (1.0, 1.0), (1.0, 1.0)) == (0, 0, 100, 400)


WHOLE = settings_for(Augment, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), horizontal_flip=0.0)


def trained(image: Image.Image, mode: str, augment: Augment = WHOLE, seed: int = 0) -> torch.Tensor:
    with seeded(seed):
        return train_transform(replace(SPEC, crop_mode=mode), augment).apply(DecodedImage(image, 3, name="it"))


def edged() -> Image.Image:
    """Return a wide blue image with a red edge on the left and on the right, as defects would be."""
    pixels = np.zeros((50, 200, 3), np.uint8)
    pixels[..., 2] = 255
    pixels[:, :10] = pixels[:, -10:] = (255, 0, 0)
    return Image.fromarray(pixels)


def red(image: torch.Tensor) -> torch.Tensor:
    """Return where an image (C, H, W), normalised, is red."""
    return (image[0] > 1) & (image[2] < 0)


def test_training_on_whole_images_sees_what_a_square_crop_cuts_off() -> None:
    assert not red(trained(edged(), "center")).all(0)[[0, -1]].any()
    squashed = red(trained(edged(), "squash"))
    assert squashed[:, :3].all() and squashed[:, -3:].all() and not squashed[:, 4:-4].any()
    bordered = red(trained(edged(), "border"))
    assert bordered[:, 0].sum() == bordered[:, -1].sum() == 15  # a quarter of the frame's height


def test_a_border_is_what_normalisation_makes_zero() -> None:
    image = trained(edged(), "border")
    empty = (image.abs() < 0.02).all(0)
    assert empty.sum() == 45 * 60


def test_an_image_with_a_border_lies_anywhere_and_is_enlarged_as_a_crop_would_be() -> None:
    tops, shares = set(), []
    for seed in range(60):
        image = trained(edged(), "border", replace(WHOLE, crop_scale=(0.25, 1.0)), seed)
        rows = (image.abs() >= 0.02).any(0).all(1).nonzero()
        tops.add(int(rows[0]))
        shares.append(len(rows) / 15)
    assert len(tops) > 20
    assert min(shares) >= 1 and 1.6 < max(shares) <= 2  # of each side: the root of a quarter
