"""Optimizers: which parameter moves at which rate and with how much decay, for any optimizer of timm."""

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from timm.models._manipulate import group_with_matcher
from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info, list_optimizers
from torch import nn
from torch.optim import Optimizer

from finetune.config.settings.phases import Phase
from finetune.errors import ConfigError, nearest
from finetune.models.layers import Layer, layers, plain_name
from finetune.models.network import Network

Group = dict[str, Any]

# torch's optimizers that update all parameters in one kernel, the devices where they do, and what excludes it; with the
# default network on the CPU, AdamW's step takes a third and SGD's half of the time that the plain ones take
FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
FUSED_DEVICES = ("cpu", "cuda")
UNFUSED_OPTIONS = ("fused", "foreach", "differentiable")


def parameter_groups(network: Network, phase: Phase, *, lr: float, weight_decay: float) -> list[Group]:
    """Return the optimizer groups of a phase, shallow to deep, at most two for each layer.

    Layer decay is multiplied into each group's lr, because timm's `lr_scale` is read by timm's schedulers alone. A
    group whose name ends in /no_decay holds biases, norms and what the model itself wants without weight decay.

    Args:
        network: The network; parameters that do not require a gradient are in no group.
        phase: Its `lr` goes before the given one; each layer's rate is `layer_decay` times that of the next deeper one,
            and the head's is multiplied by `head_lr`.
        lr: Learning rate of the deepest layer.
        weight_decay: Of all groups but the /no_decay ones.

    Raises:
        ConfigError: Nothing moves, or a moving parameter is not in exactly one group.

    Source: Bao et al. 2022, BEiT, appendix H (layer-wise decay), as in timm.optim.param_groups_layer_decay.
    """
    parameters = dict(network.named_parameters())
    undecayed = no_decay_patterns(network)
    groups: list[Group] = []
    for layer, rate in layer_rates(network, phase, lr).items():
        moving = [(name, parameters[name]) for name in layer.parameters if parameters[name].requires_grad]
        plain = [weight for name, weight in moving if _is_plain(name, weight, undecayed)]
        decayed = [weight for name, weight in moving if not _is_plain(name, weight, undecayed)]
        if decayed:
            groups.append({"params": decayed, "name": layer.name, "lr": rate, "weight_decay": weight_decay})
        if plain:
            groups.append({"params": plain, "name": f"{layer.name}/no_decay", "lr": rate, "weight_decay": 0.0})
    if not groups:
        raise ConfigError(f"Nothing moves in phase '{phase.name}' (train: {phase.train}). Use train: head, or all.")
    check_groups(network, groups)
    return groups


def layer_rates(network: Network, phase: Phase, lr: float) -> dict[Layer, float]:
    """Return the learning rate of each layer, from the input to the head.

    Decay applies once to the layer below the head, twice to the next, and so on. Where timm groups the last backbone
    layer with its classifier (the last norm of ConvNeXt), it does not apply to that layer, as in timm.
    """
    base = lr if phase.lr is None else phase.lr
    *body, head = layers(network)
    first = 0 if _classifier_shares_a_layer(network.backbone) else 1
    rates = {layer: base * phase.layer_decay**depth for depth, layer in enumerate(reversed(body), start=first)}
    return {**dict(reversed(rates.items())), head: base * phase.head_lr}


def check_groups(network: nn.Module, groups: Sequence[Group]) -> None:
    """Check that each parameter is in exactly one group, or frozen and in none.

    Raises:
        ConfigError: Names the parameters that are not.
    """
    times = Counter(id(weight) for group in groups for weight in group["params"])
    wrong = [
        f"{name} (in {times[id(weight)]} groups, {'moving' if weight.requires_grad else 'frozen'})"
        for name, weight in network.named_parameters()
        if times[id(weight)] != int(weight.requires_grad)
    ]
    if wrong:
        raise ConfigError(
            f"{len(wrong)} parameters are not in exactly one optimizer group or frozen: {', '.join(wrong)}. "
            "Choose another model or another strategy."
        )


def _classifier_shares_a_layer(backbone: nn.Module) -> bool:
    classifier = getattr(backbone, "pretrained_cfg", {}).get("classifier")
    matcher = getattr(backbone, "group_matcher", None)
    if not classifier or matcher is None:
        return False
    own = {f"{name}.weight" for name in ([classifier] if isinstance(classifier, str) else classifier)}
    others = {plain_name(name) for name, _ in backbone.named_parameters()}
    named = ((name, None) for name in sorted(own | others))
    depths = group_with_matcher(named, matcher(coarse=False), reverse=True)
    return not {depths[name] for name in own}.isdisjoint(depths[name] for name in others)


def decayed_parameters(network: Network) -> dict[str, nn.Parameter]:
    """Return the moving parameters that weight decay acts on, by name."""
    undecayed = no_decay_patterns(network)
    moving = ((name, weight) for name, weight in network.named_parameters() if weight.requires_grad)
    return {name: weight for name, weight in moving if not _is_plain(name, weight, undecayed)}


def no_decay_patterns(network: Network) -> set[str]:
    """Return the names, as patterns, of the parameters that the backbone itself wants without weight decay."""
    declared = getattr(network.backbone, "no_weight_decay", None)
    return {f"backbone.{name}" for name in declared()} if declared is not None else set()


def _is_plain(name: str, weight: nn.Parameter, undecayed: set[str]) -> bool:
    return weight.ndim <= 1 or name.endswith(".bias") or any(fnmatch(name, pattern) for pattern in undecayed)


def build_optimizer(name: str, groups: Sequence[Group], options: Mapping[str, Any], *, fuse: bool = False) -> Optimizer:
    """Return an optimizer of timm over the groups.

    A fused one leaves the unscaling of gradients to its caller, as the others do: clipping comes in between.

    Args:
        name: Any of timm.optim.list_optimizers(), also with `lookahead_` before it.
        groups: Each with its own lr and weight_decay.
        options: Further arguments of the optimizer, such as betas or momentum; `fused` and `foreach` go before `fuse`.
        fuse: Whether one kernel is to update all parameters where the optimizer is torch's and has such a kernel.

    Raises:
        ConfigError: The optimizer or an option is not known, a value is refused, or a package or GPU is missing.
    """
    _check_name(name)
    _check_options(name, options)
    kernel: dict[str, Any] = {"fused": True} if fuse and can_fuse(name, groups, options) else {}
    rate = max(group["lr"] for group in groups)
    try:
        optimizer = create_optimizer_v2(list(groups), opt=name, lr=rate, **options, **kernel)
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"optimizer.name={name} cannot be built: {error}. Check optimizer.*") from error
    if hasattr(optimizer, "_step_supports_amp_scaling"):
        optimizer._step_supports_amp_scaling = False
    return optimizer


def can_fuse(name: str, groups: Sequence[Group], options: Mapping[str, Any]) -> bool:
    """Return whether one kernel can update all parameters, and no option asks for another way."""
    if get_optimizer_class(_bare(name), bind_defaults=False) not in FUSED or set(options) & set(UNFUSED_OPTIONS):
        return False
    weights = [weight for group in groups for weight in group["params"]]
    return all(weight.is_floating_point() and weight.device.type in FUSED_DEVICES for weight in weights)


def _bare(name: str) -> str:
    return name.lower().removeprefix("lookahead_")


def _check_name(name: str) -> None:
    known = [str(optimizer) for optimizer in list_optimizers()]
    bare = _bare(name)
    if bare not in known:
        raise ConfigError(
            f"optimizer.name={name} is not an optimizer of timm.{nearest(bare, known)} "
            'See all with: python -c "import timm; print(timm.optim.list_optimizers())"'
        )
    if get_optimizer_info(bare).second_order:
        raise ConfigError(f"optimizer.name={name} needs second-order gradients, which are not computed. Use adamw.")


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    bare = _bare(name)
    try:
        optimizer_class = get_optimizer_class(bare, bind_defaults=False)
    except (AssertionError, ImportError) as error:
        raise ConfigError(f"optimizer.name={name} cannot be used here: {error}. Use adamw.") from error
    arguments = inspect.signature(optimizer_class).parameters
    valid = sorted(set(arguments) - {"params", "lr", "weight_decay"})
    for option in options:
        if option in ("lr", "weight_decay"):
            raise ConfigError(f"optimizer.options.{option} is set by optimizer.{option}: use that.")
        if option not in valid:
            raise ConfigError(
                f"optimizer.options.{option} is not an option of {name} ({', '.join(valid)}).{nearest(option, valid)}"
            )
