"""Solved heads on cached features: the one epoch in which a solver finds their weights, and the k-NN baseline."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from finetune.data.datamodule import ImageData
from finetune.errors import ConfigError
from finetune.features.cached_features import CachedFeatures
from finetune.features.feature_datamodule import FeatureData
from finetune.models.heads.fit import HeadExamples, SolvedHead, feature_statistics, fit_head
from finetune.models.heads.modules import HeadSpec, standardize_layer
from finetune.models.heads.nearest_neighbours import neighbour_probabilities
from finetune.models.heads.settings import SolverSettings
from finetune.runs.run import Run
from finetune.training.classifier import Classifier, LabelledBatch

log = logging.getLogger(__name__)

# of the training images, at most, vote in the baseline
KNN_NEIGHBOURS = 20_000
_CHUNK = 8192


@dataclass(frozen=True)
class HeadPlan:
    """How the head of a phase at rest comes by its weights.

    Attributes:
        spec: What it is.
        solver: What finds them; None for the optimizer.
        group: Column of the table whose values stay on one side of a fold; None for none.
    """

    spec: HeadSpec = HeadSpec()
    solver: SolverSettings | None = None
    group: str | None = None


class SolvedClassifier(Classifier):
    """A classifier whose head is solved at the start of its only epoch; no step changes it."""

    plan: HeadPlan
    report: SolvedHead | None = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return no optimizer."""
        self.automatic_optimization = False
        return None

    def on_train_epoch_start(self) -> None:
        """Solve the head on the first rank, and hand its weights to the others."""
        super().on_train_epoch_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.trainer.is_global_zero:
            self.report = self.solve(data)
            log.info("%s", summary_line(self.report))
        if self.trainer.world_size > 1:
            for value in self.network.head.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def solve(self, data: FeatureData) -> SolvedHead:
        """Return how the head was solved."""
        head = self.network.head.cpu()
        report = solve_on_features(head, data, self.loss, self.plan, self.image_weights)
        head.to(self.device)
        return report

    def notes(self) -> dict[str, float]:
        """Return nothing: penalties other than the solver's own have no part in it."""
        return {}

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        with torch.no_grad():
            return {"loss": self.training_loss(batch)}


class HeadSetup(Callback):
    """Before the first epoch on cached features: the statistics of a head that wants them, and a baseline.

    The baseline says what the features know without any training; a head that stays below it is not trained well.
    """

    def __init__(self, run: Run) -> None:
        """Note the baseline in a run."""
        self.run = run

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the statistics, and measure the baseline."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, Classifier)
        for split in ("train", "val"):  # by all ranks, before the first one alone works with them
            data.features(split)
        layer = standardize_layer(pl_module.network.head)
        if layer is not None and not isinstance(pl_module, SolvedClassifier):
            layer.set_statistics(*feature_statistics(phase_examples(data, pl_module.loss, HeadPlan())))
        if trainer.is_global_zero and pl_module.current_epoch == 0:
            score = knn_baseline(data)
            log.info("k-NN baseline: val accuracy %.4f (by the nearest training images)", score)
            if self.run.record_file.exists():
                self.run.update(baselines={"val": {"nearest_neighbours": score}})


@torch.no_grad()
def solve_on_features(
    head: Any, data: FeatureData, loss: Any, plan: HeadPlan, image_weights: Tensor | None
) -> SolvedHead:
    """Find the weights of a head on the CPU for a loss, and return how it went.

    A loss that adds offsets to the logits has the same least value with a bias that is smaller by them, since no
    penalty is on the bias.
    """
    assert plan.solver is not None
    report = fit_head(head, plan.spec, phase_examples(data, loss, plan, image_weights), plan.solver)
    offsets: Tensor | None = getattr(loss, "offsets", None)
    if offsets is not None:
        head[-1].bias -= offsets.to(head[-1].bias)
    return report


def phase_examples(data: FeatureData, loss: Any, plan: HeadPlan, image_weights: Tensor | None = None) -> HeadExamples:
    """Return the training features of a phase, in all their views, as a solver takes them."""
    return head_examples(data.features("train"), data.images, loss, plan, image_weights)


def head_examples(
    features: CachedFeatures, images: ImageData, loss: Any, plan: HeadPlan, image_weights: Tensor | None = None
) -> HeadExamples:
    """Return features of training images, in all their views, as a solver takes them, weighted as the images are."""
    count, views = len(features.rows), features.views
    check_memory(count * views * 4 * features.take(features.rows[:1]).shape[1])
    values = torch.cat([single_view(features, view) for view in range(views)])
    weights = sample_weights(features.rows, images, image_weights)
    frame = images.table.frame
    groups = None if plan.group is None else np.asarray(pd.factorize(frame[plan.group].iloc[features.rows])[0])
    if groups is None and views > 1:  # the views of an image stay together
        groups = np.arange(count)
    return HeadExamples(
        features=values,
        targets=torch.cat([torch.from_numpy(images.table.targets()[features.rows])] * views),
        task=images.table.task,
        num_classes=images.table.num_classes,
        sample_weights=None if weights is None else weights.repeat(views),
        class_weights=getattr(loss, "class_weights", None),
        smoothing=float(getattr(loss, "label_smoothing", 0.0)),
        groups=None if groups is None else np.tile(groups, views),
    )


def sample_weights(rows: np.ndarray, images: ImageData, image_weights: Tensor | None) -> Tensor | None:
    """Return what each training image (N,) counts: as often as it would be drawn, or as its loss would; None for 1."""
    if image_weights is not None:
        return image_weights[torch.from_numpy(rows)]
    drawn = images.training_weights()
    return None if drawn is None else torch.from_numpy(drawn / drawn.mean()).float()


def single_view(features: CachedFeatures, view: int) -> Tensor:
    """Return all features (N, F) in one view."""
    return features.take(features.rows, np.full(len(features.rows), view))


def check_memory(size: int) -> None:
    """Check that all features fit into memory, which a solver needs.

    Raises:
        ConfigError: They do not.
    """
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    if size > free:
        raise ConfigError(
            f"The features take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free: too few to solve the "
            "head. Set head.solver=optimizer head.l2=null head.l1=null, which reads them in batches."
        )


def knn_baseline(data: FeatureData) -> float:
    """Return the share of validation images, or of their labels, that the nearest training images predict rightly."""
    table = data.images.table
    known, asked = data.features("train"), data.features("val")
    rows = np.random.default_rng(0).permutation(known.rows)[:KNN_NEIGHBOURS]
    targets = torch.from_numpy(table.targets())
    found = neighbour_probabilities(
        known.pooled(rows), targets[rows], asked.pooled(asked.rows), num_classes=table.num_classes, chunk=_CHUNK
    )
    truth = targets[asked.rows]
    right = found.argmax(1) == truth if table.task == "multiclass" else (found >= 0.5) == truth.bool()
    return float(right.float().mean())


def summary_line(report: SolvedHead) -> str:
    """Return what there is to say about a solved head."""
    strengths = [f"{name}={getattr(report, name):.3g}" for name in ("l2", "l1") if getattr(report, name)]
    chosen = f" ({report.folds}-fold cross-validation of {len(report.curve)} strengths)" if report.curve else ""
    zeros = f", {report.zeros:.0%} of weights zero" if report.solver == "proximal" else ""
    state = "" if report.converged else ", not converged"
    words = " ".join([report.solver, *strengths])
    return f"Head solved by {words}{chosen} in {report.seconds:.1f} s, {report.iterations} steps{zeros}{state}."


def check_plan(plan: HeadPlan, backbone_frozen: Sequence[bool], strategy: str) -> None:
    """Check that a head that is solved, or standardises, has a phase in which its features are known.

    Args:
        plan: How the head comes by its weights.
        backbone_frozen: Of each phase, whether the backbone stands still in it.
        strategy: Its name.

    Raises:
        ConfigError: It has none, or others, in which trees cannot learn.
    """
    if plan.spec.kind == "boosted" and not all(backbone_frozen):
        raise ConfigError(
            f"head=boosting has no slopes by which strategy={strategy} could move the backbone. Choose strategy=frozen."
        )
    if any(backbone_frozen) or (plan.solver is None and not plan.spec.standardize):
        return
    what = f"head.solver={plan.solver.solver}" if plan.solver is not None else "head.standardize=true"
    raise ConfigError(
        f"{what} needs a phase on cached features, and strategy={strategy} has none. Choose strategy=frozen or "
        "strategy=lp_ft, or head=linear."
    )
