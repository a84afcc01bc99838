"""What of a configuration is not for sequences of frames, said before anything is computed.

It decides which settings are refused, and what to type instead; how sequences are trained on is as for images.
"""

from collections.abc import Mapping
from typing import Any

from finetune.data.sequences.batches import check_sequence_views
from finetune.data.sequences.frame_store import sequence_limit
from finetune.data.table import ImageTable
from finetune.errors import ConfigError
from finetune.training.phases import Strategy


def check_sequences(config: Mapping[str, Any], strategy: Strategy, table: ImageTable) -> None:
    """Check that a configuration on sequences asks for nothing that is for single images alone.

    Raises:
        ConfigError: It does.
    """
    if sequence_limit(table) is None:
        return
    for name in ("views", "test_views"):
        check_sequence_views(config.get("features", {}).get(name, 1), f"features.{name}")
    moving = [phase for phase in strategy.phases if not phase.backbone_frozen]
    kept = next((phase.name for phase in moving if phase.features == "cached"), None)
    if kept is not None:
        raise ConfigError(
            f"Phase '{kept}' keeps activations of single images, and these are sequences. Set strategy.features=none, "
            "or use strategy=frozen."
        )
    if config.get("noise") == "mixup":
        raise ConfigError("noise=mixup mixes single images, and these are sequences. Use another, such as smoothing.")
    if config.get("data", {}).get("imbalance") == "augment_minority":
        raise ConfigError(
            "imbalance=augment_minority varies single images, and these are sequences. Use imbalance=oversample."
        )
    augment = config.get("augment", {})
    mixed = [name for name in ("mixup", "cutmix") if augment.get("enabled") and augment.get(name, 0) > 0]
    if mixed and moving:
        raise ConfigError(
            f"augment.{mixed[0]} mixes single images, and phase '{moving[0].name}' trains on sequences. Set "
            "augment.mixup=0 augment.cutmix=0, or use strategy=frozen."
        )
