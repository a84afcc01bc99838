"""Candidates of a ranking: which backbones, and where the weights of each are to be had on this machine."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import timm
import torch

from finetune.config.settings.search_groups import RankSettings
from finetune.errors import ConfigError, nearest
from finetune.models.network import check_name
from finetune.models.weights import BUNDLED

_Policy = Literal["download", "local", "none"]
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
# small to middling, convolutional and transformers, with good weights
DEFAULTS = (
    BUNDLED,
    "mobilenetv3_large_100.ra_in1k",
    "efficientnet_b0.ra_in1k",
    "resnet50.a1_in1k",
    "convnext_nano.in12k_ft_in1k",
    "convnext_tiny.in12k_ft_in1k",
    "vit_small_patch16_224.augreg_in21k_ft_in1k",
)


class UnavailableError(Exception):
    """A backbone's weights are not to be had; the message is the reason."""


@dataclass(frozen=True)
class BackboneCandidate:
    """A backbone that can be compared.

    Attributes:
        name: In timm.
        weights: What `build_network` takes: bundled, timm, none, or the path of a file.
        typed: The same as a person would type it for a run.
    """

    name: str
    weights: str
    typed: str


def choose_names(models: str | Sequence[str] | None, folder: Path | None, *, pretrained: bool) -> list[str]:
    """Return the names of the backbones that are meant, each once.

    Args:
        models: Names or patterns (mobilenetv3*); None for the usual ones and those whose weights are in the folder.
        folder: Of local weights, named after their models; None for none.
        pretrained: Whether patterns mean only models whose weights timm knows.

    Raises:
        ConfigError: timm has no such model, or the folder does not exist.
    """
    if folder is not None and not folder.is_dir():
        raise ConfigError(
            f"rank.weights_dir={folder} is not a folder. Name one with files such as resnet50.safetensors."
        )
    if models is None:
        stems = [] if folder is None else sorted(file.stem for file in folder.iterdir() if file.suffix in SUFFIXES)
        return list(dict.fromkeys([*DEFAULTS, *(s for s in stems if s.partition(".")[0] in timm.list_models())]))
    found: list[str] = []
    for pattern in [models] if isinstance(models, str) else models:
        found += _expand(pattern, pretrained=pretrained)
    return list(dict.fromkeys(found))


def _expand(pattern: str, *, pretrained: bool) -> list[str]:
    """Return the models that a name or a pattern means; a pattern takes each architecture's usual weights.

    Raises:
        ConfigError: It means none.
    """
    if not any(sign in pattern for sign in "*?["):
        check_name(pattern)
        return [pattern]
    if "." in pattern:
        found = timm.list_pretrained(pattern)
    else:
        found = [name for name in timm.list_models(pattern) if not pretrained or timm.is_model_pretrained(name)]
    if not found:
        start = pattern.split("*")[0]
        raise ConfigError(f"rank.models: '{pattern}' means no model of timm's.{nearest(start, timm.list_models())}")
    return found


def locate(name: str, policy: _Policy, folder: Path | None, reachable: Callable[[], bool]) -> BackboneCandidate:
    """Return where a backbone's weights are: in the folder, bundled, downloaded before, or on the hub.

    Args:
        name: In timm.
        policy: download takes what is here first; local takes nothing else; none makes weights at random.
        folder: Of local weights; None for none.
        reachable: Tells whether anything can be downloaded.

    Raises:
        UnavailableError: They are not to be had.
    """
    if policy == "none":
        return BackboneCandidate(name, "none", "none")
    stems = dict.fromkeys([name, name.partition(".")[0]])  # a file is named after a model, with its tag or without
    for own in [folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES] if folder is not None else []:
        if own.is_file():
            return BackboneCandidate(name, str(own), str(own))
    if name == BUNDLED:
        return BackboneCandidate(name, "bundled", "bundled")
    kept = downloaded(name)
    if kept is not None:
        return BackboneCandidate(name, str(kept), "timm")
    if not timm.is_model_pretrained(name):
        raise UnavailableError("timm knows no weights for it")
    if policy == "local":
        raise UnavailableError("its weights are not on this machine (rank.weights=download fetches them)")
    if not reachable():
        raise UnavailableError("its weights are not on this machine, and there is no network to fetch them")
    return BackboneCandidate(name, "timm", "timm")


def downloaded(name: str) -> Path | None:
    """Return the file that timm, or torch, downloaded for a model before; None where there is none."""
    config: Any = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        return None
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        for file in filter(None, (config.hf_hub_filename, *HUB_FILES)):
            found = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision or None)
            if isinstance(found, str):
                return Path(found)
    kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url or "none").name
    return kept if kept.suffix in SUFFIXES and kept.is_file() else None


@cache
def hub_is_reachable() -> bool:
    """Return whether the hub answers; asked once, since a download without a network is tried for a minute."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=5)
    except Exception:  # noqa: BLE001 - whatever the client raises, there is no way through
        return False
    return True


def check_ranking_options(options: RankSettings) -> None:
    """Check the words and limits of the comparison.

    Raises:
        ConfigError: One makes no sense.
    """
    for name in ("max_params", "max_latency"):
        limit = getattr(options, name)
        if limit is not None and not (math.isfinite(limit) and limit > 0):
            unit = "parameters, such as 10e6" if name == "max_params" else "milliseconds"
            raise ConfigError(f"rank.{name}={limit} is not a limit. Give a number of {unit}, or null for none.")
    models = options.models
    words = [models] if isinstance(models, str) else models
    if words is not None and not (isinstance(words, list) and words and all(isinstance(word, str) for word in words)):
        raise ConfigError(
            f"rank.models={models} is no list of names. Type rank.models=[resnet50,vit_small*] or a name."
        )
