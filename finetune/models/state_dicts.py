"""State dicts of strangers: where in a file a model's tensors are, whatever wrapped them and whatever they are called.

A wrapper, a container of a checkpoint and a module around the model alike are a prefix of the tensors' names; which one
it is follows from the names that the model itself has.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetune.errors import ConfigError

log = logging.getLogger(__name__)

StateDict = dict[str, Tensor]
# what stands in names for wrappers inside a model
INNER = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.")
# around a model whose tensors have other names than timm's, which timm itself translates
OUTER = (
    "state_dict", "model_state_dict", "model_state", "model", "network", "net", "module", "backbone", "encoder",
    "timm_model",
)  # fmt: skip
# in the name of what holds a moving average of the weights
EMA = ("ema", "averaged", "average", "teacher", "swa")
# no weights, or those of an optimizer
NO_WEIGHTS = ("optimizer", "optim", "lr_scheduler", "callbacks", "loops")
_DEPTH = 4
# share of a model's tensors that have to be found for a prefix to be believed
_ENOUGH = 0.5
_SHOWN = 3


class Weights(NamedTuple):
    """Tensors of a file that are a model's.

    Attributes:
        tensors: By the model's names, as far as these are known.
        prefix: That they had in the file.
        others: Names of tensors beside them.
    """

    tensors: StateDict
    prefix: str
    others: tuple[str, ...]


def flatten_tensors(content: Any, depth: int = _DEPTH) -> StateDict:
    """Return all tensors of a file by their dotted names, those of optimizers left out."""
    return dict(_tensors(content, "", depth))


def _tensors(content: Any, place: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Tensor):
            yield f"{place}{name}", value
        elif depth and not str(name).startswith(NO_WEIGHTS):
            yield from _tensors(value, f"{place}{name}.", depth - 1)


def find_weights(state: StateDict, own: Sequence[str], source: str, *, use_ema: bool) -> Weights:
    """Return the tensors of a model.

    Args:
        state: All tensors of a file.
        own: The names that the model has for its tensors.
        source: What the file is called in messages.
        use_ema: Whether the moving average of the weights is taken where the file holds these and the raw ones.

    Raises:
        ConfigError: Several sets of weights fit.
    """
    plain = {_without_inner(name): tensor for name, tensor in state.items()}
    matches = count_matches(plain, own)
    most = max(matches.values(), default=0)
    if most < _ENOUGH * len(own):
        return _foreign(plain, source, use_ema=use_ema)
    fitting = sorted((prefix for prefix, number in matches.items() if number == most), key=len)
    prefix = choose_prefix(fitting, plain, source, use_ema=use_ema)
    tensors = {name[len(prefix) :]: value for name, value in plain.items() if name.startswith(prefix)}
    others = tuple(name for name in plain if not name.startswith((prefix, *fitting)))
    return Weights(tensors, prefix, others)


def count_matches(state: StateDict, own: Sequence[str]) -> Counter[str]:
    """Return for each prefix how many of a model's names are found after it."""
    names = set(own)
    found: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        found.update(".".join([*parts[:place], ""]) for place in range(len(parts)) if ".".join(parts[place:]) in names)
    return found


def choose_prefix(fitting: Sequence[str], state: StateDict, source: str, *, use_ema: bool) -> str:
    """Return the prefix of the weights that are taken, of those that fit equally well, and say which of two kinds.

    Raises:
        ConfigError: Several are of the same kind, and not the same weights.
    """
    averaged = [prefix for prefix in fitting if is_ema(prefix)]
    raw = [prefix for prefix in fitting if prefix not in averaged]
    chosen = averaged if averaged and (use_ema or not raw) else raw
    chosen = _same_or_usual(chosen, state)
    if len(chosen) > 1:
        listed = ", ".join(f"'{prefix}'" for prefix in chosen[:_SHOWN])
        raise ConfigError(
            f"{source} holds several sets of weights that fit, below {listed}. Save the one that is meant by itself, "
            "best as .safetensors."
        )
    if averaged and raw:
        kind, switch = ("a moving average", "false") if use_ema else ("the raw weights", "true")
        log.info(
            "%s holds raw weights and their moving average (EMA): %s is taken, below '%s' (model.use_ema=%s takes the "
            "other).", source, kind, chosen[0], switch,
        )  # fmt: skip
    return chosen[0]


def is_ema(prefix: str) -> bool:
    """Return whether a name is that of a moving average of the weights."""
    return any(word in EMA for word in prefix.lower().replace(".", "_").split("_"))


def _same_or_usual(prefixes: Sequence[str], state: StateDict) -> list[str]:
    """Return prefixes without those below which the same tensors stand, or that are not in a container of weights."""
    found: list[str] = []
    for prefix in prefixes:
        mine = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
        if not any(_equal(mine, state, other) for other in found):
            found.append(prefix)
    ranks = {prefix: OUTER.index(prefix.split(".")[0]) for prefix in found if prefix.split(".")[0] in OUTER}
    best = [prefix for prefix in found if ranks.get(prefix, len(OUTER)) == min(ranks.values(), default=len(OUTER))]
    return best if len(best) == 1 else found


def _equal(mine: StateDict, state: StateDict, other: str) -> bool:
    """Return whether the same tensors stand below another prefix."""
    return all(
        f"{other}{name}" in state and value.shape == state[f"{other}{name}"].shape
        and torch.equal(value, state[f"{other}{name}"])
        for name, value in mine.items()
    )  # fmt: skip


def _without_inner(name: str) -> str:
    """Return a tensor's name without what wrappers inside the model put into it."""
    for word in INNER:
        name = name.replace(word, "")
    return name


def _foreign(state: StateDict, source: str, *, use_ema: bool) -> Weights:
    """Return tensors whose names are not timm's, without what usually stands around a model."""
    prefix, tensors = "", state
    while True:
        heads = dict.fromkeys(name.split(".")[0] for name in tensors if "." in name)
        usual = [head for head in heads if head in OUTER or is_ema(head)]
        if not usual or len(usual) < len(heads):
            break
        head = choose_prefix([f"{usual[0]}."] if len(usual) == 1 else _kinds(usual), tensors, source, use_ema=use_ema)
        prefix, tensors = prefix + head, {
            name[len(head) :]: value for name, value in tensors.items() if name.startswith(head)
        }  # fmt: skip
    return Weights(tensors, prefix, ())


def _kinds(heads: Sequence[str]) -> list[str]:
    """Return the usual container of raw weights, and that of their moving average."""
    raw = sorted((head for head in heads if not is_ema(head)), key=OUTER.index)
    return [f"{head}." for head in (*raw[:1], *[head for head in heads if is_ema(head)][:1])]


def describe_weights(weights: Weights) -> str:
    """Return in words what was found in a file."""
    names = sorted(weights.tensors)
    shown = ", ".join(names[:_SHOWN])
    where = f"below '{weights.prefix}' " if weights.prefix else ""
    return f"{where}{len(names):,} tensors such as {shown}" if names else "no tensor"
