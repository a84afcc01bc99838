"""The settings of what a run does beside training: choosing, explaining, grouping, recording.

What each means, its unit and what null means stands in conf/, beside its default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from finetune.config.settings.checked import Checked, Open, Target, in_range, read_target, typed


@dataclass(frozen=True)
class RecipeSettings(Checked):
    """Who chooses what was not typed, and in which time the run is to end."""

    place: ClassVar[str] = "recipe."

    name: Literal["none", "auto"]
    budget: Open


@dataclass(frozen=True)
class ExplainSettings(Checked):
    """Of which images of a run, and how, maps are made at its end."""

    place: ClassVar[str] = "explain."

    images: int = field(metadata=in_range(least=0))
    method: str


@dataclass(frozen=True)
class GroupSettings(Checked):
    """Which groups of images are looked at."""

    place: ClassVar[str] = "groups."

    columns: tuple[str, ...] | None
    min_images: int = field(metadata=in_range(least=1))
    intersections: tuple[Any, ...]


@dataclass(frozen=True)
class OodSettings(Checked):
    """How images unlike those of training are told."""

    place: ClassVar[str] = "ood."

    kind: Literal["mahalanobis", "knn", "pca", "energy", "msp", "none"]
    tpr: float = field(metadata=in_range(above=0, below=1, such="0.95"))
    images: int = field(metadata=in_range(least=2))
    neighbours: int | None = field(metadata=in_range(least=1))
    variance: float | None = field(metadata=in_range(above=0, below=1, such="0.95"))

    @property
    def fits_features(self) -> bool:
        """Whether features of training images are needed."""
        return self.kind in ("mahalanobis", "knn", "pca")


@dataclass(frozen=True)
class WandbSettings(Checked):
    """What of a run is recorded in Weights & Biases."""

    place: ClassVar[str] = "logger.wandb."

    project: str
    entity: str | None
    mode: str
    checkpoints: str
    images: int = field(metadata=in_range(least=0))
    table: int = field(metadata=in_range(least=0))


@dataclass(frozen=True)
class LoggerSettings(Checked):
    """What records a run beside its folder.

    Attributes:
        wandb: None for nothing there.
        others: Loggers of Lightning, by the name of their entry.
    """

    place: ClassVar[str] = "logger."

    wandb: WandbSettings | None
    others: Mapping[str, Target]

    @classmethod
    def read(cls, content: Mapping[str, Any] | None) -> "LoggerSettings":
        """Return the settings of the entries of the group logger."""
        entries = dict(content or {})
        wandb = entries.pop("wandb", None)
        others = {name: read_target(f"logger.{name}", entry) for name, entry in entries.items()
                  if entry and "_target_" in entry}  # fmt: skip
        return cls(typed(WandbSettings, wandb) if wandb else None, others)
