"""Evaluation sees images exactly as timm's own transform makes them; training varies them for any channels."""

import random

import numpy as np
import pytest
import torch
from configured import settings_for
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import create_model

from finetune.config.settings.training_groups import Augment
from finetune.data.transforms import InputSpec, eval_transform, train_transform
from finetune.errors import ConfigError

PIXELS = np.random.default_rng(0).integers(0, 256, (45, 70, 4), dtype=np.uint8)
IMAGES = {
    1: Image.fromarray(PIXELS[..., 0]),
    3: Image.fromarray(np.ascontiguousarray(PIXELS[..., :3])),
    4: Image.fromarray(PIXELS),
}


def spec_of(channels: int, **changes: object) -> InputSpec:
    values = {"interpolation": "bicubic", "crop_pct": 0.875, **changes}
    return InputSpec(channels, 32, 32, (0.4,) * channels, (0.2,) * channels, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext", "tf_efficientnet_lite0"]
)
def test_evaluation_equals_timm_bit_for_bit(name: str) -> None:
    config = resolve_data_config({}, model=create_model(name))
    channels, height, width = config["input_size"]
    spec = InputSpec(
        channels, height, width, config["mean"], config["std"], config["interpolation"], config["crop_pct"],
        config["crop_mode"],
    )  # fmt: skip
    assert torch.equal(eval_transform(spec)(IMAGES[3]), create_transform(**config)(IMAGES[3]))


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_every_setting_reaches_timm(crop_mode: str, interpolation: str) -> None:
    spec = spec_of(3, crop_mode=crop_mode, interpolation=interpolation, crop_pct=0.7)
    expected = create_transform(
        (3, 32, 32), mean=spec.mean, std=spec.std, crop_pct=0.7, crop_mode=crop_mode, interpolation=interpolation
    )
    assert torch.equal(eval_transform(spec)(IMAGES[3]), expected(IMAGES[3]))


AUGMENTS = {
    "plain": settings_for(Augment),
    "colour": settings_for(Augment, color_jitter=0.4, vertical_flip=0.5),
    "randaugment": settings_for(Augment, rand_augment="rand-m9-mstd0.5-inc1"),
    "erase": settings_for(Augment, erase=1.0),
}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", AUGMENTS)
def test_training_varies_images_of_any_channels(name: str, channels: int) -> None:
    if name == "randaugment" and channels == 4:
        pytest.skip("refused, see below")
    transform = train_transform(spec_of(channels), AUGMENTS[name])
    made = []
    for seed in range(20):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        made.append(transform(IMAGES[channels]))
    assert all(pixels.shape == (channels, 32, 32) and pixels.dtype == torch.float32 for pixels in made)
    assert all(torch.isfinite(pixels).all() for pixels in made)
    assert not torch.equal(made[0], made[1])


def test_training_without_augmentation_is_evaluation() -> None:
    transform = train_transform(spec_of(3), settings_for(Augment, enabled=False))
    assert torch.equal(transform(IMAGES[3]), eval_transform(spec_of(3))(IMAGES[3]))


def test_randaugment_that_cannot_work_says_what_to_type() -> None:
    with pytest.raises(ConfigError, match="augment.rand_augment=rnd-m9 is not known to timm"):
        train_transform(spec_of(3), settings_for(Augment, rand_augment="rnd-m9"))
    with pytest.raises(ConfigError, match="not on 4 channels"):
        train_transform(spec_of(4), settings_for(Augment, rand_augment="rand-m9"))
