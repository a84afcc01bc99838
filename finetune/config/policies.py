"""Policies: what `imbalance`, `label_noise` and `regularize` mean for loss, augmentation and weight decay."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from finetune.errors import ConfigError

_Config = dict[str, Any]
LOSSES = "finetune.training.losses."
# what a loss that a word chooses is made with
CHOSEN = {"Focal": {"gamma": 2.0}, "GeneralisedCrossEntropy": {"q": 0.7}}
SMOOTHING, MIXUP = 0.1, 0.2


def resolve_policies(config: _Config, typed: Sequence[str] = ()) -> tuple[_Config, list[str]]:
    """Return a configuration in which policies have become settings, and lines that say which.

    The given configuration is left as it is.

    What has been resolved stays as it is.

    Args:
        config: Of a run.
        typed: The overrides of the command line, which tell what was asked for from what is a default.

    Raises:
        ConfigError: A word is not known, or contradicts what was typed.
    """
    result = copy.deepcopy(config)
    keys = {override.lstrip("+~").partition("=")[0] for override in typed}
    lines = [*resolve_imbalance(result, keys), *resolve_label_noise(result, keys), *resolve_regularize(result, keys)]
    return result, lines


def resolve_imbalance(config: _Config, keys: set[str]) -> Iterator[str]:
    """Choose the loss where it is what `imbalance` asks for."""
    if config["imbalance"] == "focal":
        yield from choose_loss(config, keys, "imbalance=focal", "Focal")


def resolve_label_noise(config: _Config, keys: set[str]) -> Iterator[str]:
    """Choose the loss, its smoothing or the mixing that `label_noise` asks for."""
    word = config["label_noise"]
    if word == "generalised_ce":
        yield from choose_loss(config, keys, "label_noise=generalised_ce", "GeneralisedCrossEntropy")
    elif word == "smoothing":
        yield smooth_labels(config, keys)
    elif word == "mixup" and config["augment"]["enabled"] and not config["augment"]["mixup"]:
        if "augment.mixup" in keys:
            raise ConfigError("label_noise=mixup mixes images, and augment.mixup=0 does not. Leave one of them out.")
        config["augment"]["mixup"] = MIXUP
        yield f"label_noise=mixup: augment.mixup={MIXUP:g}"


def choose_loss(config: _Config, keys: set[str], word: str, name: str) -> Iterator[str]:
    """Put a loss in place of cross-entropy, which is the default.

    Raises:
        ConfigError: Another loss was asked for, or a setting that this one has not.
    """
    loss, defaults = config["loss"], CHOSEN[name]
    if loss["_target_"] == LOSSES + name:
        return
    unknown = sorted(key for key in keys if key.startswith("loss.") and key.removeprefix("loss.") not in defaults)
    if "loss" in keys or loss["_target_"] != LOSSES + "CrossEntropy":
        asked = f"loss={loss['_target_'].removeprefix(LOSSES)}"
    else:
        asked = unknown[0] if unknown else ""
    if asked:
        raise ConfigError(f"{word} uses the loss {name}, and {asked} asks for another one. Leave one of them out.")
    options = {key: loss.get(key, value) for key, value in defaults.items()}
    config["loss"] = {"_target_": LOSSES + name, **options}
    yield f"{word}: the loss is {name} with {', '.join(f'loss.{key}={options[key]:g}' for key in options)}"


def smooth_labels(config: _Config, keys: set[str]) -> str:
    """Smooth the targets of the loss where they are not.

    Raises:
        ConfigError: The loss has no smoothing, or it was switched off.
    """
    loss = config["loss"]
    if "label_smoothing" not in loss:
        raise ConfigError(
            f"label_noise=smoothing needs a loss that smooths labels, and {loss['_target_'].rpartition('.')[2]} does "
            "not. Use loss=cross_entropy, or loss=bce for several labels per image."
        )
    if not loss["label_smoothing"]:
        if "loss.label_smoothing" in keys:
            raise ConfigError(
                "label_noise=smoothing smooths labels, and loss.label_smoothing=0 does not. Leave one of them out."
            )
        loss["label_smoothing"] = SMOOTHING
    return f"label_noise=smoothing: loss.label_smoothing={loss['label_smoothing']:g}"


def resolve_regularize(config: _Config, keys: set[str]) -> Iterator[str]:
    """Check the strengths, and let a penalty towards the pretrained weights take the place of decay towards 0."""
    strengths = config["regularize"]
    used = [name for name, value in strengths.items() if value]
    if used and config["trainer"]["strategy"] == "fsdp":
        raise ConfigError(f"regularize.{used[0]} needs whole weights, which trainer=fsdp shares out. Use trainer=ddp.")
    if "l1" in used and (config["callbacks"] or {}).get("ema"):
        raise ConfigError(
            "regularize.l1 makes weights zero, and the moving average of callbacks.ema makes them nearly so. Leave one "
            "of them out."
        )
    if "l2_sp" in used and config["optimizer"]["weight_decay"] and "optimizer.weight_decay" not in keys:
        config["optimizer"]["weight_decay"] = 0.0
        yield f"regularize.l2_sp={strengths['l2_sp']:g}: optimizer.weight_decay=0, whose place it takes"
