"""Checks of a configuration on sequences of frames, before anything is computed."""

from finetune.config.settings.roots import PartsSettings
from finetune.config.settings.training_groups import ViewSettings
from finetune.data.sequences.batches import check_sequence_views
from finetune.data.sequences.frame_store import sequence_limit
from finetune.data.table import ImageTable
from finetune.errors import ConfigError


def check_sequences(settings: PartsSettings, table: ImageTable) -> None:
    """Check that a configuration on sequences asks for nothing that is for single images alone.

    Raises:
        ConfigError: It does.
    """
    if sequence_limit(table) is None:
        return
    check_views(settings.features, settings.tta_views, table)
    moving = [phase for phase in settings.strategy.phases if not phase.backbone_frozen]
    kept = next((phase.name for phase in moving if phase.features == "cached"), None)
    if kept is not None:
        raise ConfigError(
            f"Phase '{kept}' keeps activations of single images, and these are sequences. Set strategy.features=none, "
            "or use strategy=frozen."
        )
    if settings.label_noise == "mixup":
        raise ConfigError(
            "label_noise=mixup mixes single images, and these are sequences. Use another, such as smoothing."
        )
    if settings.imbalance == "augment_minority":
        raise ConfigError(
            "imbalance=augment_minority varies single images, and these are sequences. Use imbalance=oversample."
        )
    augment = settings.augment
    mixed = [name for name in ("mixup", "cutmix") if augment.enabled and getattr(augment, name) > 0]
    if mixed and moving:
        raise ConfigError(
            f"augment.{mixed[0]} mixes single images, and phase '{moving[0].name}' trains on sequences. Set "
            "augment.mixup=0 augment.cutmix=0, or use strategy=frozen."
        )


def check_views(features: ViewSettings, tta_views: int, table: ImageTable) -> None:
    """Check that sequences are passed through a backbone once.

    Raises:
        ConfigError: Several views of them are asked for.
    """
    if sequence_limit(table) is not None:
        check_sequence_views(features.views, "features.views")
        check_sequence_views(tta_views, "tta_views")
