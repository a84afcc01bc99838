"""Each corruption is what its name says, worse with each severity, and the same for the same image and seed."""

import colorsys
import io
from typing import Any

import numpy as np
import pytest
from photos import photo
from PIL import Image
from scipy.ndimage import gaussian_filter

from finetune.errors import ConfigError
from finetune.evaluation.robustness.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    SIDE,
    check_corruptions,
    corrupt,
    line_kernel,
    to_pixels,
)

PHOTO = photo((112, 112))
GREY = Image.new("RGB", (200, 200), (128, 128, 128))


def changed(name: str, severity: int, image: Image.Image = PHOTO, seed: int = 0, key: str = "a.jpg") -> Any:
    return np.asarray(corrupt(image, name, severity, seed=seed, key=key), np.float64)


def strength(name: str, severity: int) -> float:
    return CORRUPTIONS[name][1][severity - 1]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_changes_more(name: str) -> None:
    original = np.asarray(PHOTO, np.float64)
    errors = [np.square(changed(name, severity) - original).mean() for severity in SEVERITIES]
    assert errors == sorted(errors) and errors[0] > 0


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_grey_images_stay_grey_and_opacity_stays(name: str, mode: str) -> None:
    image = PHOTO.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    found = corrupt(image, name, 3, seed=0, key="a")
    assert (found.mode, found.size) == (mode, image.size) and found.tobytes() != image.tobytes()
    if mode == "RGBA":
        assert found.getchannel("A").tobytes() == image.getchannel("A").tobytes()


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "motion_blur"])
def test_what_is_drawn_depends_on_seed_and_image_alone(name: str) -> None:
    first = changed(name, 3)
    np.random.seed(5)
    assert np.array_equal(changed(name, 3), first)
    assert not np.array_equal(changed(name, 3, seed=1), first)
    assert not np.array_equal(changed(name, 3, key="b.jpg"), first)


def test_noise_has_the_variance_of_its_name() -> None:
    for severity in (1, 2, 3):
        noise = changed("gaussian_noise", severity, GREY) - 128
        assert noise.std() == pytest.approx(255 * strength("gaussian_noise", severity), rel=0.02)
        assert abs(noise.mean()) < 0.5
        light = changed("shot_noise", severity, GREY) / 255
        assert light.var() == pytest.approx(128 / 255 / strength("shot_noise", severity), rel=0.06)
        broken = changed("impulse_noise", severity, GREY)
        assert (broken == 0).mean() == pytest.approx(strength("impulse_noise", severity) / 2, rel=0.06)
        assert (broken == 255).mean() == pytest.approx(strength("impulse_noise", severity) / 2, rel=0.06)


@pytest.mark.parametrize("severity", [1, 5])
def test_gaussian_blur_is_that_of_scipy_at_any_size(severity: int) -> None:
    for image in (PHOTO, photo((224, 224))):
        sigma = strength("gaussian_blur", severity) * image.width / SIDE
        expected = gaussian_filter(np.asarray(image, np.float64), (sigma, sigma, 0), mode="mirror", truncate=3.0)
        assert np.abs(changed("gaussian_blur", severity, image) - expected).max() < 2.5
        assert np.abs(changed("gaussian_blur", severity, image) - expected).mean() < 0.5


@pytest.mark.parametrize("angle", [0.0, 0.6, np.pi / 2, 2.5])
def test_motion_blur_is_a_line_of_its_length_and_direction(angle: float) -> None:
    kernel = line_kernel(12, angle).numpy()
    down, across = np.nonzero(kernel) - np.array(12)
    assert kernel.sum() == pytest.approx(1)
    assert np.hypot(down, across).max() == pytest.approx(12, abs=0.8)
    # no place is more than a pixel's half diagonal away from the line
    assert np.abs(across * np.sin(angle) - down * np.cos(angle)).max() < 0.75
    assert np.abs(kernel - kernel[::-1, ::-1]).max() < 0.02


@pytest.mark.parametrize("name", ["brightness", "darkness"])
def test_light_changes_the_value_of_hsv_alone(name: str) -> None:
    image = photo((12, 12))
    for before, after in zip(
        to_pixels(image).reshape(-1, 3), changed(name, 2, image).reshape(-1, 3) / 255, strict=True
    ):
        hue, saturation, value = colorsys.rgb_to_hsv(*map(float, before))
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1.0, max(0.0, value + strength(name, 2))))
        assert after == pytest.approx(expected, abs=0.5 / 255 + 1e-6)


def test_contrast_keeps_the_mean_and_a_share_of_the_spread() -> None:
    before, after = np.asarray(PHOTO, np.float64), changed("contrast", 3)
    assert after.mean((0, 1)) == pytest.approx(before.mean((0, 1)), abs=0.1)
    assert after.std((0, 1)) == pytest.approx(0.2 * before.std((0, 1)), rel=0.02)


def test_pixels_and_jpegs_are_those_of_pil() -> None:
    small = PHOTO.resize((44, 44), Image.Resampling.BOX)
    assert np.array_equal(changed("pixelate", 3), np.asarray(small.resize(PHOTO.size, Image.Resampling.BOX)))
    stream = io.BytesIO()
    PHOTO.save(stream, "JPEG", quality=7)
    assert np.array_equal(changed("jpeg", 5), np.asarray(Image.open(stream)))


def test_what_is_asked_for_is_done_once_in_order() -> None:
    assert check_corruptions(["jpeg", "contrast", "jpeg"], [5, 1, 5]) == (
        ("jpeg", 1), ("jpeg", 5), ("contrast", 1), ("contrast", 5),
    )  # fmt: skip
    assert len(check_corruptions(None, [1, 3, 5])) == 30


@pytest.mark.parametrize(
    ("names", "severities", "message"),
    [
        (["gausian_noise"], [1], "Did you mean 'gaussian_noise'"),
        (None, [0], "severities holds 0; they go from 1"),
        (None, [], "must not be empty"),
        ([], [1], "must not be empty"),
    ],
)
def test_what_there_is_not_is_refused(names: list[str] | None, severities: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_corruptions(names, severities)
