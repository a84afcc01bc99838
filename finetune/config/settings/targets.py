"""Targets: what conf/ names by its path, each with the settings that it is made with.

A configuration that was stored may name nothing else, since what it names is called (`config/trust.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from finetune.config.settings.checked import KNOWN_TARGETS, Checked, Open, in_range

SHARE = in_range(least=0, below=1, what="a share")
ValMeaning = Literal["val", "test"]
FolderValMeaning = Literal["auto", "val", "test"]


@dataclass(frozen=True)
class DigitsTarget(Checked):
    """Of the bundled digits."""

    place: ClassVar[str] = "data."


@dataclass(frozen=True)
class FolderTarget(Checked):
    """Of class folders."""

    place: ClassVar[str] = "data."

    root: str
    val_means: FolderValMeaning


@dataclass(frozen=True)
class SequencesTarget(FolderTarget):
    """Of class folders of sequences."""

    frames: int = field(metadata=in_range(least=1))


@dataclass(frozen=True)
class TableTarget(Checked):
    """Of a table of images."""

    place: ClassVar[str] = "data."

    path: str
    root: str | None
    path_column: str
    label_column: str
    label_columns: tuple[str, ...]
    label_separator: str | None
    split_column: str
    group_columns: tuple[str, ...]
    val_means: ValMeaning


@dataclass(frozen=True)
class SequenceTableTarget(TableTarget):
    """Of a table of frames."""

    frames: int = field(metadata=in_range(least=1))
    sequence_column: str
    order_column: str


@dataclass(frozen=True)
class HubTarget(Checked):
    """Of a data set of the Hub."""

    place: ClassVar[str] = "data."

    name: str
    config: str | None
    revision: str | None
    image_column: str
    label_column: str
    val_means: ValMeaning


@dataclass(frozen=True)
class UnlabelledTarget(Checked):
    """Of images without labels."""

    place: ClassVar[str] = "data."

    root: str | None
    path: str | None
    path_column: str


@dataclass(frozen=True)
class SmoothedLossTarget(Checked):
    """Of a cross-entropy."""

    label_smoothing: float = field(metadata=SHARE)


@dataclass(frozen=True)
class FocalTarget(Checked):
    """Of the focal loss."""

    gamma: float = field(metadata=in_range(least=0))


@dataclass(frozen=True)
class GeneralisedTarget(Checked):
    """Of the generalised cross-entropy."""

    q: float = field(metadata=in_range(above=0, most=1))


@dataclass(frozen=True)
class EarlyStoppingTarget(Checked):
    """Of Lightning's early stopping."""

    monitor: str
    min_delta: float
    patience: int = field(metadata=in_range(least=0))
    verbose: bool
    mode: Literal["max", "min"]
    strict: bool
    check_finite: bool
    stopping_threshold: float | None
    divergence_threshold: float | None
    check_on_train_epoch_end: bool | None
    log_rank_zero_only: bool


@dataclass(frozen=True)
class EmaTarget(Checked):
    """Of Lightning's moving average of the weights."""

    device: Open
    use_buffers: bool
    decay: float = field(metadata=in_range(least=0, most=1))
    update_every_n_steps: int = field(metadata=in_range(least=1))
    update_starting_at_step: int | None
    update_starting_at_epoch: int | None


@dataclass(frozen=True)
class SwaTarget(Checked):
    """Of stochastic weight averaging."""

    start: float = field(metadata=SHARE)


@dataclass(frozen=True)
class SnapshotsTarget(Checked):
    """Of snapshots."""

    cycles: int = field(metadata=in_range(least=1))


@dataclass(frozen=True)
class TensorBoardTarget(Checked):
    """Of Lightning's TensorBoard logger, which a run gives its folder."""

    name: str | None
    version: Open
    log_graph: bool
    default_hp_metric: bool
    prefix: str
    sub_dir: str | None


TARGET_SETTINGS: Mapping[str, type[Checked]] = {
    "finetune.data.sources.digits": DigitsTarget,
    "finetune.data.sources.folder": FolderTarget,
    "finetune.data.sources.csv": TableTarget,
    "finetune.data.sources.sequences": SequencesTarget,
    "finetune.data.sources.sequence_table": SequenceTableTarget,
    "finetune.data.sources.hub.hub": HubTarget,
    "finetune.data.sources.unlabelled.unlabelled": UnlabelledTarget,
    "finetune.training.losses.CrossEntropy": SmoothedLossTarget,
    "finetune.training.losses.BinaryCrossEntropy": SmoothedLossTarget,
    "finetune.training.losses.Focal": FocalTarget,
    "finetune.training.losses.GeneralisedCrossEntropy": GeneralisedTarget,
    "finetune.training.callbacks.snapshots.Snapshots": SnapshotsTarget,
    "finetune.training.callbacks.swa.StochasticWeightAveraging": SwaTarget,
    "pytorch_lightning.callbacks.EMAWeightAveraging": EmaTarget,
    "pytorch_lightning.callbacks.EarlyStopping": EarlyStoppingTarget,
    "pytorch_lightning.loggers.TensorBoardLogger": TensorBoardTarget,
}
KNOWN_TARGETS.update(TARGET_SETTINGS)
