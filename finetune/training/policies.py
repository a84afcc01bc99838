"""Words become settings: what `imbalance`, `noise` and `regularize` mean for the loss, the augmentation and the decay.

It decides which settings a word changes, says so in the log, and refuses what contradicts it; what the settings do is
left to the parts that receive them.
"""

import copy
import logging
import math
from collections.abc import Sequence
from typing import Any

from finetune.errors import ConfigError, nearest
from finetune.models.heads.settings import SolverSettings
from finetune.training.imbalance import check_policy

log = logging.getLogger(__name__)

_Config = dict[str, Any]
NOISE = ("none", "smoothing", "generalised_ce", "mixup", "drop_suspects")
LOSSES = "finetune.training.losses."
# what a loss that a word chooses is made with
CHOSEN = {"Focal": {"gamma": 2.0}, "GeneralisedCrossEntropy": {"q": 0.7}}
SMOOTHING, MIXUP = 0.1, 0.2


def resolve_words(config: _Config, typed: Sequence[str] = ()) -> _Config:
    """Return a configuration in which the words have become settings, and log which; the given one is left as it is.

    What has been resolved stays as it is. Configurations of runs that are older than the words are left alone.

    Args:
        config: Of a run.
        typed: The overrides of the command line, which tell what was asked for from what is a default.

    Raises:
        ConfigError: A word is not known, or contradicts what was typed.
    """
    result = copy.deepcopy(config)
    keys = {override.lstrip("+~").partition("=")[0] for override in typed}
    resolve_imbalance(result, keys)
    resolve_noise(result, keys)
    resolve_regularize(result, keys)
    return result


def resolve_imbalance(config: _Config, keys: set[str]) -> None:
    """Give `imbalance` and `data.imbalance` one value, and choose the loss where it is one."""
    data = config["data"]
    word = config.get("imbalance", data["imbalance"])
    if word != data["imbalance"] and data["imbalance"] != "none":
        raise ConfigError(
            f"imbalance={word} and data.imbalance={data['imbalance']} are two names of one setting. Leave one out."
        )
    check_policy(word)
    config["imbalance"] = data["imbalance"] = word
    if word == "focal":
        choose_loss(config, keys, "imbalance=focal", "Focal")


def resolve_noise(config: _Config, keys: set[str]) -> None:
    """Choose the loss, its smoothing or the mixing that `noise` asks for."""
    word = config.get("noise", "none")
    if word not in NOISE:
        raise ConfigError(f"noise={word} is not one of {', '.join(NOISE)}.{nearest(str(word), NOISE)}")
    if word == "generalised_ce":
        choose_loss(config, keys, "noise=generalised_ce", "GeneralisedCrossEntropy")
    elif word == "smoothing":
        smooth(config, keys)
    elif word == "mixup" and config["augment"]["enabled"] and not config["augment"]["mixup"]:
        if "augment.mixup" in keys:
            raise ConfigError("noise=mixup mixes images, and augment.mixup=0 does not. Leave one of them out.")
        config["augment"]["mixup"] = MIXUP
        log.info("noise=mixup: augment.mixup=%g", MIXUP)


def choose_loss(config: _Config, keys: set[str], word: str, name: str) -> None:
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
    log.info("%s: the loss is %s with %s", word, name, ", ".join(f"loss.{key}={options[key]:g}" for key in options))


def smooth(config: _Config, keys: set[str]) -> None:
    """Smooth the targets of the loss where they are not.

    Raises:
        ConfigError: The loss has no smoothing, or it was switched off.
    """
    loss = config["loss"]
    if "label_smoothing" not in loss:
        raise ConfigError(
            f"noise=smoothing needs a loss that smooths labels, and {loss['_target_'].rpartition('.')[2]} does not. "
            "Use loss=cross_entropy, or loss=bce for several labels per image."
        )
    if not loss["label_smoothing"]:
        if "loss.label_smoothing" in keys:
            raise ConfigError(
                "noise=smoothing smooths labels, and loss.label_smoothing=0 does not. Leave one of them out."
            )
        loss["label_smoothing"] = SMOOTHING
    log.info("noise=smoothing: loss.label_smoothing=%g", loss["label_smoothing"])


def resolve_regularize(config: _Config, keys: set[str]) -> None:
    """Check the strengths, and let a penalty towards the pretrained weights take the place of decay towards 0."""
    strengths = config.get("regularize") or {}
    for name, value in strengths.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
            raise ConfigError(f"regularize.{name}={value} is not a strength. Use a number above 0, or 0 for none.")
    used = [name for name, value in strengths.items() if value]
    if used and config["trainer"]["strategy"] == "fsdp":
        raise ConfigError(f"regularize.{used[0]} needs whole weights, which trainer=fsdp shares out. Use trainer=ddp.")
    if "l1" in used and (config.get("callbacks") or {}).get("ema"):
        raise ConfigError(
            "regularize.l1 makes weights zero, and the moving average of callbacks.ema makes them nearly so. Leave one "
            "of them out."
        )
    if "l2_sp" in used and config["optimizer"]["weight_decay"] and "optimizer.weight_decay" not in keys:
        config["optimizer"]["weight_decay"] = 0.0
        log.info("regularize.l2_sp=%g: optimizer.weight_decay=0, whose place it takes", strengths["l2_sp"])


def check_words(solver: SolverSettings, config: _Config) -> None:
    """Check that a head that is solved can follow the words; those that it cannot follow concern single steps.

    Raises:
        ConfigError: It cannot.
    """
    imbalance, noise = config["data"]["imbalance"], config.get("noise", "none")
    strengths = config.get("regularize") or {}
    refused = {
        "imbalance=augment_minority": (imbalance == "augment_minority", "Use imbalance=oversample"),
        "imbalance=logit_adjust": (
            imbalance == "logit_adjust" and solver.solver == "means", "Use imbalance=class_weights",
        ),
        "noise=mixup": (noise == "mixup", "Use noise=drop_suspects"),
        "regularize.l2_sp": (bool(strengths.get("l2_sp")), "Use head.l2"),
        "regularize.l1": (bool(strengths.get("l1")), "Use head=sparse"),
    }  # fmt: skip
    for word, (found, instead) in refused.items():
        if found:
            raise ConfigError(
                f"{word} has no meaning where the head is solved at once (head.solver={solver.solver}). {instead}, or "
                "let the optimizer train the head (head=linear)."
            )
