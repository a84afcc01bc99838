"""What is drawn for an image made on a device is what timm draws, and only plain JPEGs are left undecoded."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from configured import settings_for
from photos import OTHERS, PLAIN, SPEC, encoded, photo
from PIL.Image import Transpose

from finetune.config.settings.training_groups import Augment
from finetune.data.datamodule import seeded
from finetune.data.decoding import DecodedImage, UnreadableError
from finetune.data.gpu.params import AugmentParams, ParamsSource, check_device_pixels, plain_jpeg
from finetune.data.gpu.transform import DeviceTransform
from finetune.data.transforms import InputSpec, Transform, eval_transform, train_transform
from finetune.errors import ConfigError

AUGMENTS = {
    "light": settings_for(Augment),
    "flips": settings_for(Augment, horizontal_flip=0.5, vertical_flip=0.5),
    "colours": settings_for(Augment, color_jitter=0.4),
    "erasing": settings_for(Augment, erase=0.5),
    "all": settings_for(Augment, vertical_flip=0.5, rotate=20, color_jitter=0.4, blur=0.5, erase=0.5),
    "turns": settings_for(Augment, quarter_turns=True),
}
SQUARE = replace(SPEC, width=96)
SPECS = {"center": SQUARE, "squash": replace(SQUARE, crop_mode="squash"), "border": replace(SQUARE, crop_mode="border")}


def after(make: Callable[[DecodedImage], object], data: bytes, seed: int) -> tuple[object, ...]:
    """Return the state of the generators after something was made of a file."""
    with seeded(seed):
        make(DecodedImage.open(data, 3, name="it"))
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("name", AUGMENTS)
@pytest.mark.parametrize(
    ("file", "mode"),
    [("odd", "center"), ("tall", "squash"), ("wide", "border"), ("PNG", "center"), ("turned 6", "center")],
)
def test_draws_are_as_many_as_those_of_the_whole_transform(name: str, file: str, mode: str) -> None:
    transform = train_transform(SPECS[mode], AUGMENTS[name])
    data = {**PLAIN, **OTHERS}[file]()
    for seed in range(5):
        assert after(DeviceTransform(transform).apply, data, seed) == after(transform.apply, data, seed)


def planned(transform: Transform, seed: int) -> ParamsSource:
    with seeded(seed):
        return DeviceTransform(transform).apply(DecodedImage.open(encoded(photo((96, 80))), 3, name="it"))


def test_flips_are_those_that_the_whole_transform_makes() -> None:
    whole = settings_for(Augment, crop_scale=(1.0, 1.0), crop_ratio=(1.2, 1.2), vertical_flip=0.5)
    transform = train_transform(InputSpec(3, 80, 96, SPEC.mean, SPEC.std, "bicubic", 1.0, exact=False), whole)
    image = photo((96, 80))
    made = set()
    for seed in range(12):
        plan = planned(transform, seed).plan
        expected = image.transpose(Transpose.FLIP_LEFT_RIGHT) if plan.mirrored else image
        expected = expected.transpose(Transpose.FLIP_TOP_BOTTOM) if plan.inverted else expected
        with seeded(seed):
            found = np.asarray(transform.pixels(DecodedImage(image, 3, name="it")))
        assert np.array_equal(found, np.asarray(expected))
        made.add((plan.mirrored, plan.inverted))
    assert len(made) == 4


def test_what_is_erased_is_what_timm_erases() -> None:
    transform = train_transform(SPEC, settings_for(Augment, erase=0.5))
    erased = 0
    for seed in range(12):
        source = planned(transform, seed)
        with seeded(seed):
            whole = transform.apply(DecodedImage.open(encoded(photo((96, 80))), 3, name="it"))
        if source.plan.erased is None:
            assert len(source.noise) == 0
            continue
        top, left, height, width = source.plan.erased
        assert torch.equal(whole[:, top : top + height, left : left + width], source.noise)
        erased += 1
    assert 0 < erased < 12


def test_evaluation_draws_nothing() -> None:
    plan = planned(eval_transform(SPEC), 0).plan
    assert plan == AugmentParams(plan.region)
    assert plan.region.box == (0, 0, 96, 80)


@pytest.mark.parametrize("file", PLAIN)
def test_plain_jpegs_are_handed_on_as_they_are(file: str) -> None:
    data = PLAIN[file]()
    assert plain_jpeg(DecodedImage.open(data, 3, name="it")) == data
    assert (
        DeviceTransform(eval_transform(SPEC)).apply(DecodedImage.open(data, 3, name="it")).values.numpy().tobytes()
        == data
    )


@pytest.mark.parametrize("file", OTHERS)
def test_other_files_are_decoded_where_they_are_read(file: str) -> None:
    picture = DecodedImage.open(OTHERS[file](), 3, name="it")
    assert plain_jpeg(picture) is None
    source = DeviceTransform(eval_transform(SPEC)).apply(picture)
    assert source.values.shape == (3, *source.plan.region.size[::-1])


def test_a_grey_jpeg_is_plain_where_grey_is_wanted_and_a_coloured_one_is_not() -> None:
    assert plain_jpeg(DecodedImage.open(OTHERS["grey JPEG"](), 1, name="it"))
    assert plain_jpeg(DecodedImage.open(PLAIN["odd"](), 1, name="it")) is None


def test_a_file_that_is_cut_short_is_named_where_it_is_read() -> None:
    data = PLAIN["camera"]()
    for size in (len(data) // 2, len(data) - 1):
        with pytest.raises(UnreadableError, match="it cannot be read: .*truncated"):
            DeviceTransform(eval_transform(SPEC)).apply(DecodedImage.open(data[:size], 3, name="it"))


@pytest.mark.parametrize(
    ("changes", "augment", "pixel_cache", "named"),
    [
        ({"exact": True}, settings_for(Augment), False, "data.exact_pixels=true"),
        ({}, settings_for(Augment), True, "data.pixel_cache=true"),
        ({}, settings_for(Augment, rand_augment="rand-m7"), False, "augment.rand_augment=rand-m7"),
        ({}, settings_for(Augment, trivial_augment=True), False, "augment.trivial_augment=true"),
        ({"interpolation": "lanczos"}, settings_for(Augment), False, "model.interpolation=lanczos"),
        ({"channels": 4}, settings_for(Augment), False, "model.in_chans=4"),
    ],
)
def test_what_only_pil_can_do_is_refused_by_name(
    changes: dict[str, object], augment: Augment, pixel_cache: bool, named: str
) -> None:
    spec = InputSpec(**{**vars(SPEC), **changes})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"data.device_pixels=true .* {named}. Change that"):
        check_device_pixels(spec, augment, pixel_cache=pixel_cache)


def test_randaugment_that_is_switched_off_is_not_refused() -> None:
    check_device_pixels(SPEC, settings_for(Augment, enabled=False, rand_augment="rand-m7"), pixel_cache=False)
