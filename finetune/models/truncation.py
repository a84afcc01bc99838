"""Truncation: a backbone that ends after a share of its blocks, which is smaller and faster."""

import inspect
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from finetune.errors import ConfigError

log = logging.getLogger(__name__)

# options of timm's pruning, and their values, by which it knows more levels than those of different resolutions
FINER = {"extra_blocks": True, "coarse": False}
CANNOT = "{name} cannot be cut off after some of its blocks: timm has no way to. Set model.depth=null."


@dataclass(frozen=True)
class TruncationPoint:
    """A place at which a backbone can end.

    Attributes:
        blocks: Blocks up to there.
        level: The last of timm's feature levels that is kept.
        dropped: Blocks at the end of that level that are left out.
    """

    blocks: int
    level: int
    dropped: int


def truncate(backbone: nn.Module, depth: float, name: str) -> None:
    """Cut a backbone off, in place, after the fewest blocks that make at least a share of all.

    A convolutional network loses what follows its last block as well, such as a last convolution or norm that fits no
    other width, and pools the activations there. A transformer's blocks all have one width, so that its last norm and
    its pooling stay.

    Args:
        backbone: A timm model without a classifier, with its weights.
        depth: The share, above 0 and at most 1; 1 leaves the backbone as it is.
        name: Of the model, for messages.

    Raises:
        ConfigError: The share makes no sense, or timm cannot cut this model.
    """
    if not 0 < depth <= 1:
        raise ConfigError(f"model.depth={depth} is not a share of the blocks above 0 and at most 1.")
    if depth == 1:
        return
    found = truncation_points(backbone) if hasattr(backbone, "prune_intermediate_layers") else []
    if len(found) < 2:
        raise ConfigError(CANNOT.format(name=name))
    total = found[-1].blocks
    end = next(end for end in found if end.blocks >= depth * total - 1e-9)
    if end.blocks < total:
        whole = count_parameters(backbone)
        truncate_at(backbone, end, last=found[-1].level)
        if count_parameters(backbone) == whole:  # timm's pruning of this model leaves everything in place
            raise ConfigError(CANNOT.format(name=name))
    log.info("%s keeps %d of its %d blocks.", name, end.blocks, total)


def truncation_points(backbone: nn.Module) -> list[TruncationPoint]:
    """Return the places at which a backbone can end, first to last; also within a level whose blocks are a list."""
    found: dict[int, TruncationPoint] = {}
    blocks = 0
    for level, modules in enumerate(_levels(backbone)):
        blocks += sum(count_blocks(module) for module in modules)
        inside = block_list(modules[-1]) if modules else None
        droppable = len(inside) - 1 if inside is not None else 0
        for dropped in range(droppable, -1, -1):
            found[blocks - dropped] = TruncationPoint(blocks - dropped, level, dropped)
    return [end for number, end in sorted(found.items()) if number > 0]


def _levels(backbone: nn.Module) -> Iterator[list[nn.Module]]:
    """Yield the modules of each of timm's feature levels: the one that it ends with, and those before it beside it."""
    option = finer_levels(backbone)
    if option is not None:
        yield from [[]] * (option == "extra_blocks")  # level 0 is the stem then
        yield from ([block] for block in backbone.get_submodule("blocks").children())
        return
    names = [str(entry["module"]) for entry in feature_info(backbone)]
    seen: set[str] = set()
    for name in names:
        place, _, last = name.rpartition(".")
        beside = [child for child, _ in backbone.get_submodule(place).named_children()] if place else [last]
        paths = [f"{place}.{child}" if place else child for child in beside[: beside.index(last) + 1]]
        yield [backbone.get_submodule(path) for path in paths if path not in seen or path == name]
        seen.update(paths)


def finer_levels(backbone: nn.Module) -> str | None:
    """Return the option of timm's pruning by which each entry of `blocks` is a level; None where it has none."""
    options = inspect.signature(backbone.prune_intermediate_layers).parameters  # type: ignore[arg-type]
    return next((option for option in FINER if option in options), None)


def feature_info(backbone: nn.Module) -> list[dict[str, Any]]:
    """Return timm's description of a backbone's feature levels; empty where it has none that can be used."""
    described: Any = getattr(backbone, "feature_info", None) or []
    entries = list(getattr(described, "info", described))
    modules = dict(backbone.named_modules())
    return entries if all(entry.get("module") in modules for entry in entries) else []


def count_blocks(module: nn.Module) -> int:
    """Return the number of blocks in a module: those of its list, or of its equal children, else one."""
    inside = block_list(module)
    if inside is not None:
        return len(inside)
    kinds = [type(child) for child in module.children()]
    if len(kinds) > 1 and len(set(kinds)) == 1:
        return len(kinds)
    return int(next(module.parameters(), None) is not None)


def block_list(module: nn.Module) -> nn.Sequential | nn.ModuleList | None:
    """Return the blocks of a stage, which run one after the other; None where they are not a list."""
    inside = module if isinstance(module, nn.Sequential) else getattr(module, "blocks", None)
    return inside if isinstance(inside, nn.Sequential | nn.ModuleList) and len(inside) else None


def truncate_at(backbone: Any, end: TruncationPoint, *, last: int) -> None:
    """Leave out what comes after an end; the features are then pooled as those of the whole backbone are."""
    pool = pooling(backbone)
    if end.dropped:
        inside = block_list(list(_levels(backbone))[end.level][-1])
        assert inside is not None
        del inside[len(inside) - end.dropped :]
    if end.level < last:
        option = finer_levels(backbone)
        finer = {} if option is None else {option: FINER[option]}
        backbone.prune_intermediate_layers([end.level], prune_norm=False, prune_head=False, **finer)
        if pooling(backbone) != pool:
            backbone.reset_classifier(0, pool)


def count_parameters(module: nn.Module) -> int:
    """Return the number of a module's parameters."""
    return sum(value.numel() for value in module.parameters())


def pooling(backbone: nn.Module) -> str:
    """Return how a backbone pools its last activations."""
    for owner in (backbone, getattr(backbone, "head", None)):
        pool = getattr(owner, "global_pool", None)
        if pool is not None:
            return str(pool if isinstance(pool, str) else getattr(pool, "pool_type", ""))
    return ""
