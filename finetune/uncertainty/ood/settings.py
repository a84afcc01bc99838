"""Settings of out-of-distribution detection: by which score, fitted on how many images, with how many accepted."""

from finetune.config.settings.run_groups import OodSettings
from finetune.data.table import LabelTask
from finetune.errors import ConfigError

NONE = "none"
OF_FEATURES = ("mahalanobis", "knn", "pca")
OF_LOGITS = ("energy", "msp")
# what a setting belongs to
OWNERS = {"neighbours": "knn", "variance": "pca"}


def check_ood_settings(settings: OodSettings, task: LabelTask) -> OodSettings:
    """Return settings that make sense for a task.

    Raises:
        ConfigError: They do not.
    """
    kind = settings.kind
    if kind == "msp" and task == "multilabel":
        raise ConfigError(
            "ood=msp needs one label per image, since an image without any label is not unlike. Use ood=mahalanobis, "
            "knn, pca or energy."
        )
    for name, owner in OWNERS.items():
        if (getattr(settings, name) is not None) != (kind == owner):
            fix = f"Set ood.{name}=" if kind == owner else f"Leave it out, or choose ood={owner}"
            raise ConfigError(f"ood.{name}={getattr(settings, name)} does not go with ood={kind}. {fix}.")
    return settings
