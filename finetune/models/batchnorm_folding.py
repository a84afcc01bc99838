"""BatchNorm folding: the norms of a frozen backbone become part of the convolutions before them."""

import copy

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

# layers whose outputs are their weights' alone; others may change their weights on the way
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)


@torch.no_grad()
def fold_norms(backbone: nn.Module, images: Tensor) -> nn.Module:
    """Return a backbone that computes the same with fewer passes over its activations.

    Args:
        backbone: In eval mode, in full precision; it is not changed.
        images: A few images (B, C, H, W), on which the result is checked.

    Returns:
        A copy whose features agree up to rounding, or the backbone itself where nothing can be folded.
    """
    pairs = convolutions_before_norms(backbone, images)
    if not pairs:
        return backbone
    folded = copy.deepcopy(backbone)
    for first, second in pairs:
        fold(folded, first, second)
    expected, found = backbone(images), folded(images)
    scale = float(expected.abs().amax())
    return folded if torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * max(scale, 1.0)) else backbone


def convolutions_before_norms(backbone: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Return the names of convolutions and of the BatchNorms that take their outputs, found by watching a pass."""
    made: dict[int, tuple[str, Tensor]] = {}
    pairs: list[tuple[str, str]] = []
    runs: dict[str, int] = {}

    def watch_convolution(name: str, module: nn.Module) -> None:
        def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            runs[name] = runs.get(name, 0) + 1
            made[id(output)] = (name, output)  # kept, so that no other tensor gets its id

        handles.append(module.register_forward_hook(after))

    def watch_norm(name: str, module: nn.Module) -> None:
        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            runs[name] = runs.get(name, 0) + 1
            if id(inputs[0]) in made:
                pairs.append((made[id(inputs[0])][0], name))

        handles.append(module.register_forward_pre_hook(before))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name, module in backbone.named_modules():
        if type(module) in CONVOLUTIONS and not nn.utils.parametrize.is_parametrized(module):
            watch_convolution(name, module)
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.running_mean is not None:
            watch_norm(name, module)
    try:
        backbone(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in pairs if runs[pair[0]] == runs[pair[1]] == 1]


def fold(backbone: nn.Module, first: str, second: str) -> None:
    """Put a BatchNorm into the convolution before it; what follows in the same module, such as ReLU, stays."""
    convolution, norm = backbone.get_submodule(first), backbone.get_submodule(second)
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | BatchNormAct2d)
    assert norm.running_mean is not None and norm.running_var is not None
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
    backbone.set_submodule(second, rest.eval())
