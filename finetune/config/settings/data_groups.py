"""The settings of images: where they are from, how they are divided, read and kept.

What each means, its unit and what null means stands in conf/, beside its default.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from finetune.config.settings.checked import Checked, Target, in_range
from finetune.errors import ConfigError

Imbalance = Literal[
    "none", "class_weights", "effective_number", "focal", "balanced_sampler", "logit_adjust", "oversample",
    "undersample", "augment_minority",
]  # fmt: skip
FoldKind = Literal["kfold", "stratified", "grouped", "repeated", "leave_one_out", "bootstrap"]


@dataclass(frozen=True)
class FoldSettings(Checked):
    """How images are dealt out to folds.

    Source: Kohavi 1995, A Study of Cross-Validation and Bootstrap, section 2; Breiman 1996, Bagging Predictors.
    """

    place: ClassVar[str] = "cv."

    kind: FoldKind
    folds: int = field(metadata=in_range(least=2))
    repeats: int = field(metadata=in_range(least=1))
    seed: int = field(metadata=in_range(least=0))

    def __post_init__(self) -> None:
        """Check ranges, and that they go together."""
        super().__post_init__()
        if self.repeats > 1 and self.kind in ("leave_one_out", "bootstrap"):
            raise ConfigError(f"cv.repeats={self.repeats} has no meaning with cv={self.kind}. Leave it at 1.")


@dataclass(frozen=True)
class NumberedFold(FoldSettings):
    """One of the folds of a cross-validation."""

    place: ClassVar[str] = "data.splits.fold."

    index: int = field(metadata=in_range(least=0))


@dataclass(frozen=True)
class SplitSettings(Checked):
    """How images are divided into train, val and test."""

    place: ClassVar[str] = "data.splits."

    val: float
    test: float
    seed: int = field(metadata=in_range(least=0))
    group: str | None
    fold: NumberedFold | None


@dataclass(frozen=True)
class DataSettings(Checked):
    """Which images there are, how they are divided, and how they are read."""

    place: ClassVar[str] = "data."

    source: Target
    splits: SplitSettings
    batch_size: int = field(metadata=in_range(least=1))
    eval_batch_size: int = field(metadata=in_range(least=1))
    workers: int | None = field(metadata=in_range(least=0))
    unreadable: str
    max_megapixels: float = field(metadata=in_range(above=0))
    bits: int | None = field(metadata=in_range(least=8, most=32))
    value_range: tuple[float, ...] | None
    balance_groups: tuple[str, ...]
    image_size: int | None = field(metadata=in_range(least=1))
    crop_mode: str | None
    horizontal_flip: float
    smallest_crop: float
    exact_pixels: bool
    pixel_cache: bool
    device_pixels: bool

    def __post_init__(self) -> None:
        """Check ranges, and that values of more than 8 bits have one range at most."""
        super().__post_init__()
        given = self.value_range
        if given is None:
            return
        if self.bits is not None:
            raise ConfigError("data.bits and data.value_range exclude each other. Set one of them to null.")
        if len(given) != 2 or not all(map(math.isfinite, given)) or given[0] >= given[1]:
            shown = ",".join(f"{value:g}" for value in given)
            raise ConfigError(f"data.value_range=[{shown}] must be the lowest and the highest value, such as [0,4095].")

    @property
    def range_given(self) -> tuple[float, float] | None:
        """The values of more than 8 bits that are black and white; None where they are found over the images."""
        if self.bits is not None:
            return 0.0, float(2**self.bits - 1)
        return None if self.value_range is None else (self.value_range[0], self.value_range[1])

    @property
    def named(self) -> str:
        """Where the images are from, in a word."""
        found = [self.source.arguments.get(name) for name in ("root", "path", "name")]
        return next((str(each) for each in found if each), self.source.name)


@dataclass(frozen=True)
class CacheSettings(Checked):
    """What is kept on disk for all runs."""

    place: ClassVar[str] = "cache."

    enabled: bool
    dir: str | None
    max_size: str
