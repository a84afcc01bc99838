"""The settings of what is trained and with what: network, augmentation, optimizer, machine.

What each means, its unit and what null means stands in conf/, beside its default.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from finetune.config.settings.checked import Checked, Open, in_range
from finetune.errors import ConfigError

LabelNoise = Literal["none", "smoothing", "generalised_ce", "mixup", "drop_suspects"]
HEAD_WIDTH = 32  # of each attention head of a pretraining's decoder


@dataclass(frozen=True)
class ModelSettings(Checked):
    """Which backbone, with which weights."""

    place: ClassVar[str] = "model."

    name: str
    weights: str
    use_ema: bool
    drop_rate: float
    drop_path_rate: float
    in_chans: int = field(metadata=in_range(least=1))
    image_size: int | None = field(metadata=in_range(least=1))
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    interpolation: str | None
    crop_pct: float | None
    crop_mode: str | None
    grad_checkpointing: bool
    depth: float | None


@dataclass(frozen=True)
class HeadSettings(Checked):
    """What the head is and what finds its weights; a strength is null, a number or cv."""

    place: ClassVar[str] = "head."

    kind: str
    hidden: int = field(metadata=in_range(least=1))
    dropout: float
    standardize: bool
    solver: str | None
    l2: Open
    l1: Open
    folds: int = field(metadata=in_range(least=2))
    layers: int
    bidirectional: bool
    kernel: int
    rounds: int = field(metadata=in_range(least=1))
    tree_depth: int


@dataclass(frozen=True)
class Augment(Checked):
    """How training images are varied."""

    place: ClassVar[str] = "augment."

    enabled: bool
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    horizontal_flip: float = field(metadata=in_range(least=0, most=1, what="a probability"))
    vertical_flip: float = field(metadata=in_range(least=0, most=1, what="a probability"))
    color_jitter: float = field(metadata=in_range(least=0, such="0.2 to 0.4"))
    rand_augment: str | None
    erase: float = field(metadata=in_range(least=0, most=1, what="a probability"))
    mixup: float = field(metadata=in_range(least=0))
    cutmix: float = field(metadata=in_range(least=0))
    quarter_turns: bool
    rotate: float
    blur: float = field(metadata=in_range(least=0, most=1, what="a probability"))
    trivial_augment: bool


@dataclass(frozen=True)
class OptimizerSettings(Checked):
    """Which optimizer moves the weights, by its timm name, and its rates."""

    place: ClassVar[str] = "optimizer."

    name: str
    lr: float
    weight_decay: float
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Schedule(Checked):
    """How the learning rate goes up and down over a phase.

    Source: Loshchilov and Hutter 2017, SGDR, section 3 (cosine and restarts); Goyal et al. 2017, Accurate, Large
    Minibatch SGD, section 2.2 (gradual warm-up).
    """

    place: ClassVar[str] = "schedule."

    kind: Literal["cosine", "linear", "constant"]
    warmup: float = field(metadata=in_range(least=0, below=1, what="a share of the phase"))
    final: float = field(metadata=in_range(least=0, most=1, what="a share of the full rate"))
    cycles: int = field(metadata=in_range(least=1))


@dataclass(frozen=True)
class TrainerSettings(Checked):
    """How the machine is used."""

    place: ClassVar[str] = "trainer."

    accelerator: str
    devices: Open
    strategy: str
    num_nodes: int = field(metadata=in_range(least=1))
    precision: str
    gradient_clip: float | None = field(metadata=in_range(least=0, what="a norm"))
    accumulate: int = field(metadata=in_range(least=1))
    compile: bool
    channels_last: bool
    deterministic: bool
    log_every: int = field(metadata=in_range(least=1))
    limit_batches: int | None = field(metadata=in_range(least=1))
    threads: int | None = field(metadata=in_range(least=1))

    @property
    def fuses(self) -> bool:
        """Whether torch's fused optimizers are known to step as the others do: not on scaled or sharded gradients."""
        return not self.precision.startswith("16") and self.strategy != "fsdp"


@dataclass(frozen=True)
class ViewSettings(Checked):
    """In how many views images pass through a backbone that stands still, and how their features are kept."""

    place: ClassVar[str] = "features."

    views: int = field(metadata=in_range(least=1))
    dtype: Literal["float32", "float16"]


@dataclass(frozen=True)
class BalanceSettings(Checked):
    """The numbers of policies against imbalance."""

    place: ClassVar[str] = "balance."

    beta: float = field(metadata=in_range(least=0, below=1, such="0.9 to 0.9999"))
    tau: float = field(metadata=in_range(least=0, such="1, where 0 changes nothing"))
    views: int = field(metadata=in_range(least=1))


@dataclass(frozen=True)
class RegularizeSettings(Checked):
    """Strengths of penalties beside weight decay."""

    place: ClassVar[str] = "regularize."

    l2_sp: float = field(metadata=in_range(least=0, what="a strength"))
    l1: float = field(metadata=in_range(least=0, what="a strength"))


@dataclass(frozen=True)
class PretrainSettings(Checked):
    """How a masked autoencoder is trained."""

    place: ClassVar[str] = "pretrain."

    epochs: int = field(metadata=in_range(least=1))
    mask_ratio: float = field(metadata=in_range(above=0, below=1, such="0.75"))
    decoder_width: int = field(metadata=in_range(least=1))
    decoder_depth: int = field(metadata=in_range(least=1))
    images: int = field(metadata=in_range(least=0))

    def __post_init__(self) -> None:
        """Check ranges, and that the decoder's width has whole attention heads."""
        super().__post_init__()
        if self.decoder_width % HEAD_WIDTH:
            near = max(1, round(self.decoder_width / HEAD_WIDTH)) * HEAD_WIDTH
            raise ConfigError(
                f"pretrain.decoder_width={self.decoder_width} must be a multiple of {HEAD_WIDTH}, such as {near}."
            )
