"""A preview shows what the loaders of training and evaluation make, and tells all that is on."""

from collections import Counter
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from configured import settings_for
from photos import photo
from tiny import tiny_table

from finetune.audit.preview.network_view import choose_rows, denormalised_pixels, first_draws, mix_images, network_views
from finetune.config.settings.training_groups import Augment
from finetune.data.augmentation.description import describe_augmentation
from finetune.data.datamodule import ImageData
from finetune.data.decoding import DecodedImage
from finetune.data.resampling import Balance
from finetune.data.table import ImageTable
from finetune.data.transforms import InputSpec, eval_transform
from finetune.training.mixing import build_mixing

SPEC = InputSpec(3, 32, 32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.1), "bicubic", 1.0, exact=False)
AUGMENT = settings_for(Augment, rotate=10, color_jitter=0.2, erase=0.5)


@pytest.fixture(scope="module")
def table() -> ImageTable:
    return tiny_table(train=60, val=3, test=3)


@pytest.fixture
def images(table: ImageTable) -> ImageData:
    return ImageData(table, SPEC, AUGMENT, batch_size=8, seed=3)


def test_images_are_chosen_of_each_class_in_turn(table: ImageTable) -> None:
    rows = choose_rows(table, 13, seed=0)
    labels = Counter(table.names()[row] for row in rows)
    assert len(labels) == 10 and sorted(labels.values()) == [1] * 7 + [2] * 3
    assert set(rows) <= set(table.rows("train")) and len(set(rows)) == 13
    assert np.array_equal(choose_rows(table, 13, seed=0), rows) and not np.array_equal(
        choose_rows(table, 13, seed=1), rows
    )
    assert len(choose_rows(table, 500, seed=0)) == 60


def test_what_is_shown_is_what_the_loaders_make(images: ImageData) -> None:
    rows = choose_rows(images.table, 4, seed=0)
    shown = network_views(images, rows, views=2)
    for epoch in range(2):
        loader = images.loader("train", augmented=True)
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[attr-defined, union-attr]
        made = {int(row): image for batch in loader for row, image in zip(batch["row"], batch["image"], strict=True)}
        for each in shown:
            (expected,) = denormalised_pixels(made[each.row][None], SPEC)
            assert each.training[epoch].tobytes() == expected.tobytes()
    for each in shown:
        picture = images.table.store.open(images.table.frame["path"].iloc[each.row], 3)
        assert each.evaluation.tobytes() == eval_transform(SPEC).pixels(picture).tobytes()


def test_images_that_balancing_draws_often_are_shown_as_often(table: ImageTable) -> None:
    balanced = ImageData(table, SPEC, AUGMENT, batch_size=8, balance=Balance("balanced_sampler"))
    rows = choose_rows(table, 3, seed=0)
    for row, draws in first_draws(balanced, rows, 4).items():
        assert len(draws) == 4 and {draw.row for draw in draws} == {row} and len({draw.seed for draw in draws}) == 4


def test_repeats_of_rare_classes_are_shown_as_they_are_varied(table: ImageTable) -> None:
    frame = table.frame.copy()
    frame.loc[table.rows("train")[:20], "split"] = "val"  # so that classes differ in size
    uneven, options = replace(table, frame=frame), {"batch_size": 8, "seed": 0}
    dark = settings_for(Augment, crop_scale=(0.1, 0.2), crop_ratio=(1.0, 1.0), horizontal_flip=0.0)
    still = replace(dark, crop_scale=(1.0, 1.0))
    repeats = ImageData(uneven, SPEC, dark, **options)  # type: ignore[arg-type]
    images = ImageData(uneven, SPEC, still, balance=Balance("oversample"), repeats=repeats, **options)  # type: ignore[arg-type]
    rows = uneven.rows("train")
    drawn = first_draws(images, rows, 6)
    for each in network_views(images, rows, 6):
        same = [image.tobytes() == each.evaluation.tobytes() for image in each.training]
        assert same == [not draw.repeat for draw in drawn[each.row]]
    assert {draw.repeat for draws in drawn.values() for draw in draws} == {False, True}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_normalisation_is_undone_exactly(channels: int) -> None:
    spec = InputSpec(channels, 32, 32, (0.4,) * channels, (0.3,) * channels, "bicubic", 1.0)
    image = photo((32, 32)).convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    tensor = eval_transform(spec).apply(DecodedImage(image, channels, name="it"))
    assert denormalised_pixels(tensor[None], spec)[0].tobytes() == image.tobytes()


@pytest.mark.parametrize("alphas", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_mixed_images_are_made_of_two_by_the_shares_of_their_target(
    table: ImageTable, alphas: dict[str, float]
) -> None:
    whole = replace(AUGMENT, erase=0.0)  # noise lies outside of what can be shown
    images = ImageData(table, SPEC, whole, batch_size=8)
    rows = choose_rows(table, 6, seed=0)
    mixing = build_mixing(replace(whole, **alphas), num_classes=10, task="multiclass")  # type: ignore[arg-type]
    assert mixing is not None
    found = mix_images(images, rows, mixing, seed=0)
    single = [np.asarray(each.training[0], np.float64) for each in network_views(images, rows, views=1)]
    for place, made in enumerate(found):
        shares = dict(made.shares)
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5) and len(shares) == 2
        own = shares[images.table.names()[rows[place]][0]]
        pixels = np.asarray(made.image, np.float64)
        if "mixup" in alphas:
            assert np.abs(pixels - own * single[place] - (1 - own) * single[place - 1]).max() < 1.1
        else:
            assert (pixels == single[place]).all(axis=2).mean() >= own - 1e-6


def test_one_image_is_not_mixed_with_itself(images: ImageData) -> None:
    mixing = build_mixing(replace(AUGMENT, mixup=1.0), num_classes=10, task="multiclass")
    assert mixing is not None and mix_images(images, choose_rows(images.table, 1, seed=0), mixing, seed=0) == []


ON: dict[str, Any] = {
    "crop_scale": (0.5, 1.0), "crop_ratio": (0.9, 1.1), "horizontal_flip": 0.1, "vertical_flip": 0.1,
    "color_jitter": 0.1, "rand_augment": "rand-m5-n3", "erase": 0.1, "quarter_turns": True, "rotate": 1.0, "blur": 0.1,
    "trivial_augment": True, "mixup": 0.3, "cutmix": 0.3,
}  # fmt: skip
STILL = settings_for(Augment, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), horizontal_flip=0.0)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_each_setting_that_is_on_is_told_with_its_probability(mode: str) -> None:
    assert {field.name for field in fields(Augment)} - {"enabled"} == ON.keys()
    for name, value in ON.items():
        active = [
            each
            for each in describe_augmentation(replace(STILL, **{name: value}), crop_mode=mode)
            if each.probability > 0
        ]
        (change,) = active
        assert change.setting == f"augment.{'crop_scale' if name == 'crop_ratio' else name}"
        share = name in ("horizontal_flip", "vertical_flip", "blur", "erase")
        assert change.probability == (value if share else 1.0)


def test_a_batch_gets_one_of_two_mixings() -> None:
    both = describe_augmentation(replace(STILL, mixup=0.2, cutmix=1.0), crop_mode="center")
    assert [change.probability for change in both if change.probability] == [0.5, 0.5]
    assert describe_augmentation(replace(STILL, enabled=False), crop_mode="center") == []


def test_the_words_of_a_policy_are_those_of_its_notation() -> None:
    told = {
        each.what: each.how
        for each in describe_augmentation(replace(STILL, **{"rand_augment": "rand-m5-n3"}), crop_mode="center")
    }
    assert told["RandAugment"].startswith(
        "3 changes of a strength of 5 in 10 are drawn, each made with a probability of 0.5"
    )
