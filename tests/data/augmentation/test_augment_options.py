"""What each set of conf/augment does to pixels: which symmetries it has, and what it never does."""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from configured import settings_for
from hydra import compose, initialize_config_dir
from photos import photo
from PIL import Image
from scipy.stats import chisquare

from finetune.config.compose import conf_dir, register, to_dict
from finetune.config.settings.training_groups import Augment
from finetune.data.datamodule import seeded
from finetune.data.decoding import DecodedImage
from finetune.data.transforms import InputSpec, train_transform

SPEC = InputSpec(3, 48, 48, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875, exact=False)
WHOLE: dict[str, Any] = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
Pixels = npt.NDArray[np.float64]


def augment_of(option: str, *overrides: str, **changes: Any) -> Augment:
    """Return the augmentation of an option of conf/augment, with some settings changed."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = to_dict(compose("train", [f"augment={option}", "data=folder", "data.root=x", *overrides]))
    return settings_for(Augment, **{**config["augment"], **changes})


def varied(image: Image.Image, augment: Augment, seed: int, spec: InputSpec = SPEC) -> Pixels:
    """Return what training sees of an image under a seed, before normalisation."""
    with seeded(seed):
        found = train_transform(spec, augment).pixels(DecodedImage(image, spec.channels, name="it"))
    return np.asarray(found, np.float64)


def symmetries(pixels: Pixels) -> dict[str, Pixels]:
    """Return an image under the eight symmetries of the square, mirrored ones last."""
    turned = {f"turned {turns}": np.rot90(pixels, turns) for turns in range(4)}
    return turned | {f"mirrored {turns}": np.rot90(pixels[:, ::-1], turns) for turns in range(4)}


def nearest(pixels: Pixels, image: Image.Image) -> str:
    """Return the symmetry of an image that is most like some pixels."""

    def likeness(name: str) -> float:
        return float(np.corrcoef(candidates[name].ravel(), pixels.ravel())[0, 1])

    candidates = symmetries(np.asarray(image.resize((SPEC.width, SPEC.height)), np.float64))
    return max(candidates, key=likeness)


@pytest.mark.parametrize("option", ["microscopy", "aerial"])
def test_the_eight_symmetries_are_exact_and_equally_likely(option: str) -> None:
    image = photo((48, 48))
    expected = symmetries(np.asarray(image, np.float64))
    augment = augment_of(option, **WHOLE, color_jitter=0.0, blur=0.0)
    found: Counter[str] = Counter()
    for seed in range(240):
        pixels = varied(image, augment, seed)
        (name,) = (name for name, symmetry in expected.items() if np.array_equal(symmetry, pixels))
        found[name] += 1
    assert found.keys() == expected.keys()
    assert chisquare(list(found.values())).pvalue > 0.01


def test_without_mirror_images_the_four_turns_are_left() -> None:
    image = photo((48, 48))
    augment = augment_of("microscopy", "data.horizontal_flip=0", **WHOLE, color_jitter=0.0)
    found = {nearest(varied(image, augment, seed), image) for seed in range(60)}
    assert found == {f"turned {turns}" for turns in range(4)}


def test_microscopy_keeps_shapes() -> None:
    disc = Image.fromarray((np.hypot(*np.mgrid[-100:100, -150:150]) < 40).astype(np.uint8) * 255).convert("RGB")
    augment = augment_of("microscopy", "data.smallest_crop=0.9", color_jitter=0.0)
    for seed in range(20):
        rows, columns = np.nonzero(varied(disc, augment, seed)[..., 0] > 127)
        assert abs(np.ptp(rows) - np.ptp(columns)) <= 1


def test_documents_are_never_mirrored_or_turned() -> None:
    page = photo((48, 48))
    augment = augment_of("documents")
    made = [varied(page, augment, seed) for seed in range(60)]
    assert {nearest(pixels, page) for pixels in made} == {"turned 0"}
    assert len({pixels.tobytes() for pixels in made}) == 60


def test_documents_are_tilted_by_three_degrees_at_most() -> None:
    augment = augment_of("documents", **WHOLE, color_jitter=0.0, blur=0.0)
    line = np.full((96, 96, 3), 255, np.uint8)
    line[46:50] = 0
    spec = InputSpec(3, 96, 96, SPEC.mean, SPEC.std, "bicubic", 1.0, exact=False)
    tilts = []
    for seed in range(60):
        darkness = 255 - varied(Image.fromarray(line), augment, seed, spec)[..., 0]
        heights = (darkness * np.arange(96)[:, None]).sum(0) / darkness.sum(0)
        tilts.append(np.degrees(np.arctan(np.polyfit(np.arange(96), heights, 1)[0])))
    assert np.abs(tilts).max() < 3.05 and min(tilts) < -2 and max(tilts) > 2


def test_auto_changes_most_images_beyond_crops_and_flips_and_some_not_at_all() -> None:
    image = photo((48, 48))
    augment = augment_of("auto", **WHOLE, horizontal_flip=0.0)
    made = [varied(image, augment, seed) for seed in range(60)]
    same = sum(np.array_equal(pixels, np.asarray(image)) for pixels in made)
    assert 1 <= same < 15  # one of fourteen changes is none, and others have a strength of 0
    assert len({pixels.tobytes() for pixels in made}) > 35


@pytest.mark.parametrize("channels", [1, 3])
def test_auto_takes_grey_images_too(channels: int) -> None:
    spec = InputSpec(channels, 32, 32, (0.5,) * channels, (0.5,) * channels, "bicubic", 0.875)
    image = photo((48, 40)).convert("L" if channels == 1 else "RGB")
    for seed in range(30):
        assert varied(image, settings_for(Augment, trivial_augment=True), seed, spec).shape[:2] == (32, 32)
