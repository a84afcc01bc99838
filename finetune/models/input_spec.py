"""Input spec: what a backbone's weights expect of an image, with the given values in place of theirs."""

from collections.abc import Sequence
from typing import Any

from timm.data import resolve_model_data_config
from torch import nn

from finetune.data.transforms import InputSpec
from finetune.errors import ConfigError, nearest

INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming")
CROP_MODES = ("center", "squash", "border")


def input_spec(backbone: nn.Module, channels: int, size: int | None, overrides: dict[str, Any]) -> InputSpec:
    """Return what the weights expect of an image, with the given values in place of theirs."""
    config: dict[str, Any] = resolve_model_data_config(backbone)  # type: ignore[no-untyped-call]
    height, width = (size, size) if size is not None else config["input_size"][1:]
    interpolation = overrides["interpolation"] or config["interpolation"]
    if interpolation not in INTERPOLATIONS:
        raise ConfigError(
            f"model.interpolation={interpolation} is not known. Use one of "
            f"{', '.join(INTERPOLATIONS)}.{nearest(interpolation, INTERPOLATIONS)}"
        )
    crop_mode, crop = _crop_of(config, overrides["crop_mode"], overrides["crop_pct"])
    return InputSpec(
        channels, height, width,
        per_channel("mean", overrides["mean"], config["mean"], channels),
        per_channel("std", overrides["std"], config["std"], channels),
        interpolation, crop, crop_mode,
    )  # fmt: skip


def _crop_of(config: dict[str, Any], mode: str | None, share: float | None) -> tuple[str, float]:
    """Return how images are cropped and which share of them is kept; what is not given is the weights' own.

    A mode that is to show whole images shows all of them, unless a share is given too.
    """
    if mode is not None and mode not in CROP_MODES:
        raise ConfigError(
            f"model.crop_mode={mode} is not known. Use one of {', '.join(CROP_MODES)}.{nearest(mode, CROP_MODES)}"
        )
    whole = 1.0 if mode in ("squash", "border") else config["crop_pct"]
    crop = whole if share is None else float(share)
    if not 0 < crop <= 1:
        raise ConfigError(f"model.crop_pct={crop} is not a share above 0 and at most 1.")
    return mode or config["crop_mode"], crop


def per_channel(key: str, given: Sequence[float] | None, default: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return one value per channel; the weights' own are averaged for other channels than theirs."""
    if given is not None and len(given) not in (1, channels):
        raise ConfigError(f"model.{key} has {len(given)} values for {channels} channels. Give one per channel.")
    values = tuple(float(value) for value in (given if given is not None else default))
    if key == "std" and min(values) <= 0:
        raise ConfigError(f"model.std={list(values)} must be above 0.")
    if len(values) == channels:
        return values
    return (sum(values) / len(values),) * channels


def check_value_ranges(specs: Sequence[InputSpec]) -> None:
    """Check that images of more than 8 bits are read alike, since networks that are joined read them once.

    Raises:
        ConfigError: They are not.
    """
    ranges = sorted({spec.value_range or () for spec in specs})
    if len(ranges) > 1:
        said = " and ".join(" to ".join(f"{end:.9g}" for end in each) or "a range of each image" for each in ranges)
        raise ConfigError(
            f"Members read images of more than 8 bits differently ({said}). Train them with the same "
            "data.value_range=[low,high]."
        )
