"""Metrics while a run trains: a callback that reads what the steps return and logs it once an epoch."""

from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassStatScores,
    MultilabelAccuracy,
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
    MultilabelStatScores,
)

from finetune.errors import ConfigError, RunError, nearest
from finetune.runs.history import RunHistory
from finetune.training.classifier import Classifier, LabelledBatch

_Task = Literal["multiclass", "multilabel"]


def multiclass_metrics(num_classes: int) -> dict[str, Metric]:
    """Return the metrics of a task with one label per image, by name; those of single classes are (K,)."""
    metrics: dict[str, Metric] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "precision_macro": MulticlassPrecision(num_classes, average="none"),
        "recall_macro": MulticlassRecall(num_classes, average="none"),
        "f1_macro": MulticlassF1Score(num_classes, average="none"),
        "roc_auc": MulticlassAUROC(num_classes, average="none"),
        "average_precision": MulticlassAveragePrecision(num_classes, average="none"),
        "calibration_error": MulticlassCalibrationError(num_classes),
    }
    if num_classes > 5:
        metrics["accuracy_top5"] = MulticlassAccuracy(num_classes, top_k=5, average="micro")
    return metrics


def multilabel_metrics(num_labels: int) -> dict[str, Metric]:
    """Return the metrics of a task with any number of labels per image, by name; those of single labels are (K,)."""
    return {
        "accuracy": MultilabelAccuracy(num_labels, average="micro"),
        "exact_match": MultilabelExactMatch(num_labels),
        "precision_macro": MultilabelPrecision(num_labels, average="none"),
        "recall_macro": MultilabelRecall(num_labels, average="none"),
        "f1_macro": MultilabelF1Score(num_labels, average="none"),
        "f1_micro": MultilabelF1Score(num_labels, average="micro"),
        "roc_auc": MultilabelAUROC(num_labels, average="none"),
        "average_precision": MultilabelAveragePrecision(num_labels, average="none"),
    }


def build_metrics(task: _Task, num_classes: int) -> MetricCollection:
    """Return the validation metrics of a task; each is synchronised over the ranks when it is computed."""
    metrics = multiclass_metrics(num_classes) if task == "multiclass" else multilabel_metrics(num_classes)
    return MetricCollection(dict(metrics), prefix="val/")


def build_support(task: _Task, num_classes: int) -> Metric:
    """Return the metric of each class's true and false positives and negatives and support, (K, 5)."""
    if task == "multiclass":
        return MulticlassStatScores(num_classes, average="none")
    return MultilabelStatScores(num_classes, average="none")


def macro_average(name: str, values: Tensor, counts: Tensor) -> Tensor:
    """Return the mean over the classes that can be measured, as for the finished run; NaN if there is none.

    Args:
        name: The metric's; a ROC curve needs images of other classes too.
        values: Of each class (K,).
        counts: What `build_support`'s metric computed (K, 5).
    """
    support, images = counts[:, 4], counts[:, :4].sum(1)
    measured = support > 0
    if name.endswith("roc_auc"):
        measured &= support < images
    return values[measured].mean()


def monitored(monitor: str, logits: Tensor, target: Tensor, loss: float, task: _Task, num_classes: int) -> float:
    """Return one validation metric of a whole split, as it is computed while a run trains.

    Args:
        monitor: Its name, such as val/accuracy.
        logits: Of all images (N, K).
        target: Classes (N,), or a 0 or 1 for each label (N, K).
        loss: The split's mean loss, which may be what is monitored.
        task: One label per image or several.
        num_classes: K.
    """
    if monitor == "val/loss":
        return loss
    metric: Any = build_metrics(task, num_classes)[monitor]
    value: Tensor = metric(logits, target.long())
    if value.ndim:
        value = macro_average(monitor, value, build_support(task, num_classes)(logits, target.long()))
    return float(value)


def check_monitor(monitor: str, task: _Task, num_classes: int) -> None:
    """Check that the monitored value will exist.

    Raises:
        ConfigError: The value is not one that validation computes.
    """
    known = [*map(str, build_metrics(task, num_classes)), "val/loss"]
    if monitor not in known:
        raise ConfigError(
            f"monitor={monitor} is not a validation metric ({', '.join(known)}).{nearest(monitor, known)}"
        )


class MetricsCallback(Callback):
    """Computes the validation metrics and writes one row an epoch, and the training loss at intervals.

    The loss is added up on the device and read once an interval, so that no step waits for the host.
    """

    def __init__(self, task: _Task, num_classes: int, history: RunHistory | None, log_every: int) -> None:
        """Write to `history` (None on all ranks but the first); `log_every` is in optimizer steps."""
        self.metrics = build_metrics(task, num_classes)
        self.support = build_support(task, num_classes)
        self.loss = MeanMetric()
        self.history = history
        self.log_every = log_every
        self.values: dict[str, float] = {}
        self.interval = self.epoch = (torch.zeros(()), 0)
        self.logged_step = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the sums of the epoch and let the batches follow the epoch's permutation."""
        zero = torch.zeros((), device=pl_module.device)
        self.interval = self.epoch = (zero, 0)
        loader = trainer.train_dataloader
        assert loader is not None
        loader.batch_sampler.set_epoch(trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: LabelledBatch, batch_idx: int
    ) -> None:
        """Add the loss up, and log its mean at intervals."""
        loss = outputs["loss"].detach()
        self.interval = (self.interval[0] + loss, self.interval[1] + 1)
        self.epoch = (self.epoch[0] + loss, self.epoch[1] + 1)
        step = trainer.global_step
        if step % self.log_every == 0 and step != self.logged_step:
            self.logged_step = step
            mean = float(self.interval[0]) / self.interval[1]
            self.interval = (torch.zeros_like(loss), 0)
            if mean != mean or mean in (float("inf"), float("-inf")):
                raise RunError(
                    f"The training loss is {mean} at step {step}. Lower optimizer.lr, or set trainer.precision=32-true."
                )
            self.write(trainer, pl_module, {"train/loss_step": mean})

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the metrics to the device and empty them."""
        for metric in (self.metrics, self.support, self.loss):
            metric.to(pl_module.device)
            metric.reset()

    def add(self, logits: Tensor, target: Tensor, loss: Tensor) -> None:
        """Add a batch: logits (B, K), target (B,) or (B, K), and its mean loss."""
        self.loss.update(loss, weight=len(target))
        self.metrics.update(logits, target.long())
        self.support.update(logits, target.long())

    def compute(self) -> dict[str, Tensor]:
        """Return the value of each metric over what all ranks have added."""
        counts = self.support.compute()
        computed = {**self.metrics.compute(), "val/loss": self.loss.compute()}
        return {
            name: value if value.ndim == 0 else macro_average(name, value, counts) for name, value in computed.items()
        }

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: LabelledBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch to the metrics; padding is already left out."""
        if len(outputs["target"]):
            self.add(outputs["logits"], outputs["target"], outputs["loss"])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute the metrics over all ranks and hand them to whoever monitors them."""
        values = self.compute()
        self.values = {name: float(value) for name, value in values.items()}
        pl_module.log_dict(values, logger=False, rank_zero_only=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row of the epoch."""
        total, count = self.epoch
        mean = torch.stack([total, torch.tensor(float(count), device=total.device)])
        if trainer.world_size > 1:
            torch.distributed.all_reduce(mean)
        assert isinstance(pl_module, Classifier)
        losses = {"train/loss": float(mean[0] / mean[1].clamp(min=1)), **pl_module.notes()}
        self.write(trainer, pl_module, {**losses, **self.values})

    def write(self, trainer: pl.Trainer, pl_module: pl.LightningModule, values: dict[str, float]) -> None:
        """Write values with the step, epoch, phase and learning rates to the history and the loggers."""
        assert isinstance(pl_module, Classifier)
        if not trainer.is_global_zero:
            return
        step = pl_module.steps_before + trainer.global_step
        epoch = pl_module.epochs_before + trainer.current_epoch
        groups = trainer.optimizers[0].param_groups if trainer.optimizers else []  # a head that is solved has none
        # groups that differ only in decay share a rate
        rates = {f"lr/{group['name'].removesuffix('/no_decay')}": float(group["lr"]) for group in groups}
        if self.history is not None:
            self.history.append({"step": step, "epoch": epoch, "phase": pl_module.phase.name, **rates, **values})
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": epoch, **rates, **values}, step=step)
