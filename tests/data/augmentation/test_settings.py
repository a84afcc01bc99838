"""Settings that make no sense are refused, and each of them makes other cached views."""

from dataclasses import fields, replace
from typing import Any

import pytest
from configured import settings_for

from finetune.config.settings.training_groups import Augment
from finetune.data.datamodule import OF_BATCHES, ImageData
from finetune.data.sources import digits
from finetune.data.transforms import InputSpec, train_transform
from finetune.errors import ConfigError

SPEC = InputSpec(3, 32, 32, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875)
OTHER: dict[str, Any] = {
    "enabled": False, "crop_scale": (0.5, 1.0), "crop_ratio": (1.0, 1.0), "horizontal_flip": 0.1, "vertical_flip": 0.1,
    "color_jitter": 0.1, "rand_augment": "rand-m5", "erase": 0.1, "quarter_turns": True, "rotate": 1.0, "blur": 0.1,
    "trivial_augment": True,
}  # fmt: skip


def test_cached_views_depend_on_every_setting_of_single_images() -> None:
    table = digits()
    plain = ImageData(table, SPEC, settings_for(Augment)).augment_description
    names = {field.name for field in fields(Augment)} - set(OF_BATCHES)
    assert names == OTHER.keys()
    for name, value in OTHER.items():
        assert ImageData(table, SPEC, replace(settings_for(Augment), **{name: value})).augment_description != plain, (
            name
        )


def test_cached_views_depend_on_how_images_are_cropped() -> None:
    found = [
        ImageData(digits(), replace(SPEC, crop_mode=mode), settings_for(Augment))
        for mode in ("center", "squash", "border")
    ]
    assert len({str(images.input_description) for images in found}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizontal_flip": 1.5}, "augment.horizontal_flip=1.5 must be a probability, at least 0 and at most 1"),
        ({"blur": -0.1}, "augment.blur=-0.1 must be a probability, at least 0"),
        ({"crop_scale": (0.5, 1.2)}, r"augment.crop_scale=\[0.5, 1.2\] must be two shares"),
        ({"crop_scale": (0.5,)}, r"augment.crop_scale=\[0.5\] must be two"),
        ({"crop_ratio": (2.0, 1.0)}, "the smaller one first"),
        ({"rotate": 90}, "Set|augment.quarter_turns=true"),
        ({"color_jitter": -1}, "augment.color_jitter=-1 must be at least 0"),
        ({"rand_augment": "rand-m5", "trivial_augment": True}, "augment.rand_augment=null, or"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_transform(SPEC, replace(settings_for(Augment), **changes))
    if " at least " not in message:  # what goes together matters only where it is used; ranges hold always
        train_transform(SPEC, replace(settings_for(Augment), **changes, enabled=False))


def test_turns_of_images_that_are_not_square_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes 32 x 48 pixels. Set data.image_size=48"):
        train_transform(replace(SPEC, width=48), settings_for(Augment, quarter_turns=True))


@pytest.mark.parametrize("name", ["rand_augment", "trivial_augment"])
def test_policies_are_refused_for_images_with_transparency(name: str) -> None:
    spec = InputSpec(4, 32, 32, (0.5,) * 4, (0.5,) * 4, "bicubic", 0.875)
    with pytest.raises(ConfigError, match=f"augment.{name} works on grey and RGB images, not on 4 channels"):
        train_transform(spec, replace(settings_for(Augment), **{name: OTHER[name]}))


def test_colours_are_changed_beside_randaugment_where_both_are_asked_for() -> None:
    both = train_transform(SPEC, settings_for(Augment, rand_augment="rand-m5", color_jitter=0.2))
    assert [type(step).__name__ for step in both.middle.transforms][-2:] == ["RandAugment", "ColorJitter"]
