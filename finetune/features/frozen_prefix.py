"""The frozen prefix: where a backbone can be cut so that all that moves lies behind the cut."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import DropBlock2d, DropPath, PatchDropout
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from finetune.models.network import Network, eval_mode

# modules that are not in training what they are in evaluation
RANDOM = (nn.modules.dropout._DropoutNd, DropPath, DropBlock2d, PatchDropout)
STATISTICS = (nn.modules.batchnorm._NormBase,)
# later places are better; what is left out after so many cannot be cut at all
_TRIES = 30


@dataclass(frozen=True)
class Cut:
    """A module of a backbone whose output all that moves depends on.

    Attributes:
        name: The module.
        before: The outermost modules that are over when it is, itself included, with the shape of their output
            without its batch axis.
        after: The outermost modules that begin later.
    """

    name: str
    before: dict[str, tuple[int, ...]]
    after: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image's activations."""
        return self.before[self.name]

    def encode(self, backbone: nn.Module, images: Tensor) -> Tensor:
        """Return the activations (B, ...) of images (B, C, H, W); what comes after the cut is not computed."""
        kept: list[Tensor] = []

        def stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
            kept.append(output)
            raise _CutReachedError

        handle = backbone.get_submodule(self.name).register_forward_hook(stop)
        try:
            backbone(images)
        except _CutReachedError:
            pass
        finally:
            handle.remove()
        return kept[0]

    def resume(self, backbone: nn.Module, activations: Tensor) -> Tensor:
        """Return the pooled features (B, F) that the backbone makes of activations (B, ...)."""
        with self.replaced(backbone, activations):
            features: Tensor = backbone(activations)
        return features

    @contextmanager
    def replaced(self, backbone: nn.Module, activations: Tensor) -> Iterator[None]:
        """Let the module at the cut return the activations, and those before it zeros that nothing depends on."""
        modules = {name: backbone.get_submodule(name) for name in self.before}
        try:
            for name, module in modules.items():
                blank = activations.new_zeros(1).expand(len(activations), *self.before[name])
                module.forward = _returning(activations if name == self.name else blank)
            yield
        finally:
            for module in modules.values():
                vars(module).pop("forward", None)


class _CutReachedError(Exception):
    """The module at the cut has returned."""


def _returning(value: Tensor) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: value


@dataclass
class Trace:
    """When each module of a backbone begins and ends in a pass, and what it returns."""

    begins: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)
    clock: int = 0


@torch.no_grad()
def trace(backbone: nn.Module, images: Tensor) -> tuple[Trace, Tensor]:
    """Pass images through a backbone; return when its modules ran, and its features."""
    found = Trace()
    handles: list[RemovableHandle] = []

    def watch(name: str, module: nn.Module) -> None:
        def begin(module: nn.Module, inputs: Any) -> None:
            found.clock += 1
            if name in found.begins:
                found.repeated.add(name)
            found.begins.setdefault(name, found.clock)

        def end(module: nn.Module, inputs: Any, output: Any) -> None:
            found.clock += 1
            found.ends[name] = found.clock
            whole = isinstance(output, Tensor) and output.ndim > 1 and len(output) == len(images)
            found.shapes[name] = tuple(output.shape[1:]) if whole else None

        handles.extend([module.register_forward_pre_hook(begin), module.register_forward_hook(end)])

    for name, module in backbone.named_modules():
        if name:
            watch(name, module)
    try:
        features = backbone(images)
    finally:
        for handle in handles:
            handle.remove()
    return found, features


def find_cut(network: Network, images: Tensor) -> Cut | None:
    """Return the last place at which a backbone can be cut, or None if there is none.

    It is found by watching a pass, and believed if the features that are computed from the activations alone are those
    of the whole backbone.

    Args:
        network: Frozen as its phase says, on the device of the images.
        images: Some images (B, C, H, W); two or more.
    """
    backbone = network.backbone
    first_active = [name for name, module in backbone.named_modules() if is_active(module)]
    with eval_mode(backbone):
        found, features = trace(backbone, images)
        if "" in first_active:
            return None
        limit = min((found.begins[name] for name in first_active if name in found.begins), default=found.clock + 1)
        names = sorted(outermost([n for n, end in found.ends.items() if end < limit]), key=found.ends.__getitem__)
        for name in names[::-1][:_TRIES]:
            cut = cut_at(name, found)
            if cut is not None and holds(cut, backbone, images, features):
                return cut
        return None


def is_active(module: nn.Module) -> bool:
    """Return whether a module moves, or is random or collects statistics while the network trains."""
    if any(value.requires_grad for value in module.parameters(recurse=False)):
        return True
    if not module.training:
        return False
    rates = (getattr(module, name, None) for name in ("p", "drop_prob", "prob"))
    return isinstance(module, STATISTICS) or (isinstance(module, RANDOM) and any(rates))


def cut_at(name: str, found: Trace) -> Cut | None:
    """Return the cut at a module, or None if what runs before it cannot be replaced."""
    end = found.ends[name]
    over = [other for other, ended in found.ends.items() if ended <= end]
    before = outermost(over)
    later = outermost([other for other, begun in found.begins.items() if begun > end])
    shapes = {other: found.shapes[other] for other in before}
    if name not in before or found.repeated & set(before) or any(shape is None for shape in shapes.values()):
        return None
    return Cut(name, {other: shape for other, shape in shapes.items() if shape is not None}, tuple(later))


def outermost(names: list[str]) -> list[str]:
    """Return the names that are inside no other of them."""
    chosen = set(names)
    return [name for name in names if not any(parent in chosen for parent in parents(name))]


def parents(name: str) -> list[str]:
    """Return the names of the modules that a module is inside of."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


@torch.no_grad()
def holds(cut: Cut, backbone: nn.Module, images: Tensor, features: Tensor) -> bool:
    """Return whether the features depend on nothing but the activations at the cut."""
    try:
        resumed = cut.resume(backbone, cut.encode(backbone, images))
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
        return False
    return resumed.shape == features.shape and torch.allclose(resumed, features, atol=1e-5, rtol=1e-4)
