"""The network: a timm backbone, a head of our own, and what its weights expect of an image."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import Tensor, nn

from finetune.data.transforms import InputSpec
from finetune.errors import ConfigError, nearest
from finetune.models.heads.modules import SEQUENCE_KINDS, HeadSpec, build_head
from finetune.models.heads.sequence_heads import pad
from finetune.models.input_spec import input_spec
from finetune.models.truncation import truncate
from finetune.models.weights import create_backbone


class Network(nn.Module):
    """A backbone and a head.

    Attributes:
        backbone: Images (B, C, H, W), normalised, to pooled features (B, F).
        head: Features (B, F), or padded sequences of frames' features (B, T, 1 + F), to logits (B, K).
        name: The backbone's name in timm.
        spec: What its weights expect of an image.
        num_features: F.
        num_classes: K.
        options: What `build_network` needs to build the same architecture again.
        frames: Of a sequence at most; None for a network of single images.
        resting: Modules that stay in eval mode while the rest trains; set by `finetune.training.freezing`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Sequential,
        *,
        name: str,
        spec: InputSpec,
        num_features: int,
        num_classes: int,
        options: dict[str, Any],
        frames: int | None = None,
    ) -> None:
        """Put the parts together."""
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.name = name
        self.spec = spec
        self.num_features = num_features
        self.num_classes = num_classes
        self.options = options
        self.frames = frames
        self.resting: tuple[nn.Module, ...] = ()

    def forward(self, images: Tensor, frames: Tensor | None = None) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W), or of sequences that have so many frames (B,) of the images."""
        features: Tensor = self.backbone(images)
        return self.head(features if frames is None else pad(features, frames))  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> "Network":
        """Set training mode; modules that a phase leaves at rest stay in eval mode."""
        super().train(mode)
        if mode:
            for module in self.resting:
                module.training = False
        return self


def build_network(
    name: str,
    *,
    num_classes: int,
    weights: str = "timm",
    head: HeadSpec | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    in_chans: int = 3,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
    crop_pct: float | None = None,
    crop_mode: str | None = None,
    grad_checkpointing: bool = False,
    depth: float | None = None,
    frames: int | None = None,
    use_ema: bool = True,
) -> Network:
    """Return a network with a new head.

    Args:
        name: Any timm model, with or without a pretrained tag.
        num_classes: Number of classes K.
        weights: bundled, timm, none, or the path of a file or of a run.
        head: The head; linear by default.
        drop_rate: Dropout inside the backbone, before the pooled features leave it.
        drop_path_rate: Stochastic depth of the backbone.
        in_chans: Channels of an image.
        image_size: Side of the square input in pixels; None for the weights' own.
        mean: Per channel; None for the weights' own. Likewise std, interpolation and crop_pct.
        std: Per channel.
        interpolation: How images are resized.
        crop_pct: Share of the image that the central crop keeps.
        crop_mode: center, squash (whole images, their aspect ratio not kept) or border (whole images, padded); None for
            the weights' own. The last two keep all of an image where crop_pct is None.
        grad_checkpointing: Whether activations are computed again in the backward pass to save memory.
        depth: Share of the backbone's blocks that is kept, above 0 and at most 1; None for all.
        frames: Of a sequence at most; None for single images.
        use_ema: Whether the moving average is taken from a file that holds it beside the raw weights.

    Raises:
        ConfigError: There is no such model, or it cannot do what is asked.
    """
    check_name(name)
    head = head or HeadSpec()
    _check_head(head, frames)
    options = model_options(name, drop_rate, drop_path_rate, in_chans, image_size)
    try:
        backbone = create_backbone(name, weights, options, use_ema=use_ema)
    except (TypeError, AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"model.name={name} cannot be built with {options}: {str(error).splitlines()[0]}. Change model.* or "
            "image_size."
        ) from error
    if depth is not None:
        truncate(backbone, depth, name)
    if grad_checkpointing:
        set_checkpointing(backbone, name)
    overrides = {"mean": mean, "std": std, "interpolation": interpolation, "crop_pct": crop_pct, "crop_mode": crop_mode}
    spec = input_spec(backbone, in_chans, image_size, overrides)
    num_features = count_features(backbone, spec, name)
    remembered = {"head": vars(head), "drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    remembered |= {"in_chans": in_chans, "image_size": image_size, "depth": depth, "frames": frames}
    return Network(
        backbone, new_head(head, num_features, num_classes), name=name, spec=spec,
        num_features=num_features, num_classes=num_classes, options=remembered, frames=frames,
    )  # fmt: skip


def _check_head(head: HeadSpec, frames: int | None) -> None:
    """Check that a head reads what it is given: single images, or sequences.

    Raises:
        ConfigError: It reads the other.
    """
    if frames is None and head.kind in SEQUENCE_KINDS:
        raise ConfigError(
            f"head.kind={head.kind} reads sequences of frames, and these are single images. Use data=sequences or "
            "data=sequence_table, or head=linear."
        )
    if frames is not None and head.kind not in SEQUENCE_KINDS:
        raise ConfigError(
            f"head.kind={head.kind} reads single images, and these are sequences of frames. Use head=gru, lstm, tcn, "
            "attention or mean_pool."
        )


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode, and then each part of it back as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def new_head(spec: HeadSpec, num_features: int, num_classes: int) -> nn.Sequential:
    """Return a head whose first weights depend on torch's seed alone, whatever has been drawn since it was set."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(torch.initial_seed())  # type: ignore[attr-defined]
        return build_head(spec, num_features, num_classes)


def check_name(name: str) -> None:
    """Check that timm has the model, and the pretrained tag where one is named."""
    base, _, tag = name.partition(".")
    if base not in timm.list_models():
        raise ConfigError(
            f"timm has no model '{base}'. Set model.name to one of "
            f"timm.list_models().{nearest(base, timm.list_models())}"
        )
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")] + [
        known.partition(".")[2] for known in timm.list_pretrained(base)
    ]
    if tag and tag not in tags:
        raise ConfigError(
            f"timm has no weights '{tag}' for {base} (it has: "
            f"{', '.join(filter(None, tags)) or 'none'}).{nearest(tag, tags)}"
        )


def model_options(
    name: str, drop_rate: float, drop_path_rate: float, in_chans: int, image_size: int | None
) -> dict[str, Any]:
    """Return the arguments of `timm.create_model` that are not at their defaults."""
    options: dict[str, Any] = {"in_chans": in_chans} if in_chans != 3 else {}
    options |= {"drop_rate": drop_rate} if drop_rate else {}
    options |= {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if image_size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    return options


def set_checkpointing(backbone: nn.Module, name: str) -> None:
    """Turn gradient checkpointing on."""
    try:
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:
        raise ConfigError(
            f"model.name={name} has no gradient checkpointing. Set model.grad_checkpointing=false."
        ) from error


@torch.no_grad()
def count_features(backbone: nn.Module, spec: InputSpec, name: str) -> int:
    """Return the number of pooled features, found by passing one blank image through the backbone.

    Shapes alone are passed where the model allows it: computing takes seconds while other processes use the cores.
    """
    check_patches(backbone, spec, name)
    image = torch.zeros(1, spec.channels, spec.height, spec.width)
    try:
        with eval_mode(backbone):
            features = shape_of_features(backbone, image)
            features = backbone(image) if features is None else features
    except (RuntimeError, AssertionError, ValueError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"{name} cannot take images of {spec.height} x {spec.width} ({first}). Set model.image_size to "
            "another, such as a multiple of 32."
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ConfigError(
            f"{name} gives no pooled features (B, F), so no head can be put on it. Choose another model.name."
        )
    return int(features.shape[1])


def shape_of_features(backbone: nn.Module, image: Tensor) -> Tensor | None:
    """Return what the backbone makes of an image, without values, or None where it needs these on the way.

    A copy without values is asked: a model may keep what it has computed, and may use one layer in several places.
    """
    bare: dict[int, Any] = {}
    for value in (*backbone.parameters(), *backbone.buffers()):
        empty = value.to("meta")
        bare[id(value)] = nn.Parameter(empty, value.requires_grad) if isinstance(value, nn.Parameter) else empty
    try:
        features: Tensor = copy.deepcopy(backbone, bare)(image.to("meta"))
    except (RuntimeError, AssertionError, ValueError, TypeError):
        return None
    return features


def check_patches(backbone: nn.Module, spec: InputSpec, name: str) -> None:
    """Check that an image is a whole number of patches, where a model cuts images into patches."""
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    side = patch[0] if isinstance(patch, tuple | list) else patch
    if isinstance(side, int) and (spec.height % side or spec.width % side):
        fitting = max(1, round(spec.height / side)) * side
        raise ConfigError(
            f"{name} cuts images into patches of {side} pixels, so {spec.height} x {spec.width} does not fit. "
            f"Set model.image_size={fitting}."
        )
