"""Directions of metrics: whether the best value of what is monitored is the highest or the lowest.

A direction follows from the metric. It is typed only where the metric is none of these, and never against them.
"""

from typing import Any, Literal

from omegaconf import DictConfig, open_dict

from finetune.errors import ConfigError, nearest

Direction = Literal["max", "min"]
# measured on the network, and not on images
NETWORK_COSTS = ("parameters", "latency")
DIRECTIONS: dict[str, Direction] = {
    **dict.fromkeys(("loss", "calibration_error", *NETWORK_COSTS), "min"),
    **dict.fromkeys(
        (
            "accuracy", "accuracy_top5", "exact_match", "precision_macro", "precision_micro", "recall_macro",
            "recall_micro", "f1_macro", "f1_micro", "roc_auc", "average_precision",
        ),
        "max",
    ),
}  # fmt: skip


def direction_of(metric: str, given: Any, *, setting: str, name: str = "monitor") -> Direction:
    """Return whether a metric is best when it is highest (max) or lowest (min).

    Args:
        metric: With or without its split, such as val/loss.
        given: What was stated; None for nothing.
        setting: The key where it is stated.
        name: The key of the metric.

    Raises:
        ConfigError: It was stated and contradicts the metric, is no direction, or was not stated for a metric that is
            not known.
    """
    if given not in (None, "max", "min"):
        raise ConfigError(f"{setting}={given} is not known. Use max or min.{nearest(str(given), ('max', 'min'))}")
    known = DIRECTIONS.get(metric.rpartition("/")[2])
    if known is None and given is None:
        raise ConfigError(
            f"{name}={metric} is not known, so its direction is not either.{nearest(metric, _names())} For a metric of "
            f"your own say which value is best: {setting}=max or {setting}=min."
        )
    if known is not None and given not in (None, known):
        best = "highest" if known == "max" else "lowest"
        raise ConfigError(
            f"{setting}={given} contradicts {name}={metric}, which is best where it is {best}. Leave {setting} out."
        )
    direction: Direction = known or given
    return direction


def state_directions(config: DictConfig, place: str = "") -> None:
    """Give each part of a composed configuration that monitors a metric its direction, in place.

    Raises:
        ConfigError: One contradicts its metric.
    """
    for key in map(str, config):
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none():
            state_directions(node, f"{place}{key}.")
    lightning = str(config.get("_target_")).startswith(("pytorch_lightning.", "lightning."))  # whose mode is min
    if "monitor" in config and ("mode" in config or lightning):
        found = direction_of(str(config.monitor), config.get("mode"), setting=f"{place}mode", name=f"{place}monitor")
        with open_dict(config):
            config.mode = found


def _names() -> list[str]:
    return [f"val/{name}" for name in DIRECTIONS if name not in NETWORK_COSTS]
