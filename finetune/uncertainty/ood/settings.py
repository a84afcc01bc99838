"""How images unlike those of training are told: by which score, fitted on how many images, with how many accepted.

It decides which settings make sense together; the scores are those of `densities` and `logits`.
"""

from dataclasses import dataclass

from finetune.data.table import LabelTask
from finetune.errors import ConfigError, nearest

NONE = "none"
OF_FEATURES = ("mahalanobis", "knn", "pca")
OF_LOGITS = ("energy", "msp")
_KINDS = (*OF_FEATURES, *OF_LOGITS, NONE)
# what a setting belongs to
OWNERS = {"neighbours": "knn", "variance": "pca"}


@dataclass(frozen=True)
class OodSettings:
    """How images unlike those of training are told.

    Attributes:
        kind: mahalanobis, knn, pca, energy, msp or none.
        accept: Share of held-out validation images that are not called unlike, above 0 and below 1.
        images: Training images that a density is fitted on, at most.
        neighbours: For knn, the distance to which of the nearest training images counts.
        variance: For pca, the share of the features' variance that the kept directions hold.
    """

    kind: str = NONE
    accept: float = 0.95
    images: int = 2_000
    neighbours: int | None = None
    variance: float | None = None

    @property
    def fits_features(self) -> bool:
        """Whether features of training images are needed."""
        return self.kind in OF_FEATURES


def check_ood_settings(settings: OodSettings, task: LabelTask) -> OodSettings:
    """Return settings that make sense for a task.

    Raises:
        ConfigError: They do not.
    """
    kind = settings.kind
    if kind not in _KINDS:
        raise ConfigError(f"ood={kind} is not known. Use one of {', '.join(_KINDS)}.{nearest(str(kind), _KINDS)}")
    if kind == "msp" and task == "multilabel":
        raise ConfigError(
            "ood=msp needs one label per image, since an image without any label is not unlike. Use ood=mahalanobis, "
            "knn, pca or energy."
        )
    if not 0 < settings.accept < 1:
        raise ConfigError(f"ood.accept={settings.accept} must lie above 0 and below 1, such as 0.95.")
    if settings.images < 2:
        raise ConfigError(f"ood.images={settings.images} must be 2 or more.")
    for name, owner in OWNERS.items():
        if (getattr(settings, name) is not None) != (kind == owner):
            fix = f"Set ood.{name}=" if kind == owner else f"Leave it out, or choose ood={owner}"
            raise ConfigError(f"ood.{name}={getattr(settings, name)} does not go with ood={kind}. {fix}.")
    if settings.neighbours is not None and settings.neighbours < 1:
        raise ConfigError(f"ood.neighbours={settings.neighbours} must be 1 or more.")
    if settings.variance is not None and not 0 < settings.variance < 1:
        raise ConfigError(f"ood.variance={settings.variance} must lie above 0 and below 1, such as 0.95.")
    return settings
