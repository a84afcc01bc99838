"""Fitting: the phases of a strategy in turn, each with a trainer, an optimizer and a schedule of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.optim import Optimizer

from finetune.config.settings.phases import Phase, Strategy
from finetune.config.settings.training_groups import OptimizerSettings, Schedule, TrainerSettings
from finetune.data.datamodule import ImageData
from finetune.evaluation.inference import NetworkOutputs, Predictor
from finetune.features.extract import FeatureSettings, extract_features
from finetune.features.feature_datamodule import FeatureData, eval_loader
from finetune.features.prefix_datamodule import PrefixData
from finetune.models.network import Network
from finetune.runtime.device import DevicePass
from finetune.training.callbacks.checkpoints import Checkpoints
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.classifier import Classifier, LabelledBatch
from finetune.training.freezing import apply_phase
from finetune.training.optimizers import build_optimizer, parameter_groups
from finetune.training.regularizers import Regularizer
from finetune.training.resume import ResumePoint
from finetune.training.schedules import build_scheduler
from finetune.training.solved_head import HeadPlan, HeadSetup, SolvedClassifier, check_plan
from finetune.training.trainer import build_trainer


@dataclass(frozen=True)
class Recipe:
    """All that turns a network and images into a trained network."""

    loss: nn.Module
    optimizer: OptimizerSettings
    schedule: Schedule
    trainer: TrainerSettings
    mixing: Callable[[LabelledBatch], LabelledBatch] | None = None
    feature_mixing: Callable[[LabelledBatch], LabelledBatch] | None = None
    regularizer: Regularizer = field(default_factory=Regularizer)
    seed: int = 0
    monitor: str = "val/accuracy"
    head_batch_size: int = 256
    features: FeatureSettings = field(default_factory=FeatureSettings)
    head: HeadPlan = field(default_factory=HeadPlan)
    image_weights: Tensor | None = None  # of each row of the table (N,), in the training loss

    def solves(self, phase: Phase) -> bool:
        """Return whether the head of a phase is solved in one epoch rather than trained."""
        return phase.backbone_frozen and self.head.solver is not None


def rehearse(
    network: Network,
    strategy: Strategy,
    recipe: Recipe,
    folder: Path,
    callbacks: Callable[[], Sequence[Callback]] = tuple,
) -> None:
    """Set up every phase without training it, so that what cannot work is said before a run begins."""
    build_trainer(recipe.trainer, folder=folder, logger=False, enable_progress_bar=False, callbacks=list(callbacks()))
    check_plan(recipe.head, [phase.backbone_frozen for phase in strategy.phases], strategy.name)
    for index, phase in enumerate(strategy.phases):
        apply_phase(network, phase)
        build_classifier(network, phase, recipe, index, ResumePoint()).build_optimizer(network)


def fit(
    network: Network,
    strategy: Strategy,
    images: ImageData,
    recipe: Recipe,
    *,
    place: ResumePoint,
    metrics: MetricsCallback,
    checkpoints: Checkpoints,
    callbacks: Callable[[], Sequence[Callback]],
    loggers: Sequence[Logger],
) -> None:
    """Train the phases that are left.

    Args:
        network: The network; it is changed in place.
        strategy: The phases.
        images: The images and their batches.
        recipe: Loss, optimizer, schedule and machine.
        place: Where to start.
        metrics: Computes and logs, in all phases.
        checkpoints: Keeps the last and the best epoch, in all phases.
        callbacks: Makes the further callbacks of a phase, such as early stopping, anew for each.
        loggers: Where values go besides the history.
    """
    for index, phase in enumerate(strategy.phases):
        if index < place.phase:
            continue
        apply_phase(network, phase)
        checkpoints.follows_probe = not phase.backbone_frozen and follows_probe(strategy, index)
        classifier = build_classifier(network, phase, recipe, index, place)
        extra: list[Callback] = [*callbacks(), *([HeadSetup(checkpoints.run)] if phase.backbone_frozen else [])]
        trainer = build_trainer(
            recipe.trainer,
            folder=checkpoints.run.path,
            logger=list(loggers) or False,
            callbacks=[*suitable(extra, solved=recipe.solves(phase)), metrics, checkpoints],
            plugins=[checkpoints.io],
            enable_checkpointing=True,  # by the callback above alone
            log_every_n_steps=recipe.trainer.log_every,
            enable_progress_bar=False,
            **loop_of(phase, recipe),
        )
        data = batches_of(phase, images, recipe, place.done)
        trainer.fit(classifier, datamodule=data, ckpt_path=place.checkpoint, weights_only=True)
        place = ResumePoint(index + 1, place.steps + trainer.global_step, place.epochs + trainer.current_epoch)


def follows_probe(strategy: Strategy, index: int) -> bool:
    """Return whether nothing but a head on features at rest was trained before a phase."""
    before = strategy.phases[:index]
    return bool(before) and all(phase.backbone_frozen for phase in before)


def loop_of(phase: Phase, recipe: Recipe) -> dict[str, Any]:
    """Return how long a phase is trained, and what is done with gradients; a head that is solved has none."""
    if recipe.solves(phase):
        return {"max_epochs": 1}
    clip, accumulate = recipe.trainer.gradient_clip, recipe.trainer.accumulate
    return {"max_epochs": phase.epochs, "gradient_clip_val": clip, "accumulate_grad_batches": accumulate}


def suitable(callbacks: Sequence[Callback], *, solved: bool) -> list[Callback]:
    """Return the callbacks of a phase; weights that are found at once are not averaged over steps."""
    return [callback for callback in callbacks if not (solved and isinstance(callback, WeightAveraging))]


def batches_of(phase: Phase, images: ImageData, recipe: Recipe, first_epoch: int) -> pl.LightningDataModule:
    """Return the batches of a phase from an epoch on: cached features where the phase asks for them, else images."""
    images.first_epoch = first_epoch
    if phase.features == "cached" and not phase.backbone_frozen:
        return PrefixData(images, epochs=phase.epochs, settings=recipe.features)
    if phase.backbone_frozen:
        return FeatureData(images, batch_size=recipe.head_batch_size, seed=recipe.seed, settings=recipe.features)
    return images


def build_classifier(network: Network, phase: Phase, recipe: Recipe, index: int, place: ResumePoint) -> Classifier:
    """Return the steps of a phase, with its optimizer and schedule still to be built from the moving parameters."""
    if recipe.trainer.channels_last:
        network.to(memory_format=torch.channels_last)
    if recipe.trainer.compile:
        network.backbone.compile()

    def optimizer(moving: Network) -> Optimizer:
        settings = recipe.optimizer
        groups = parameter_groups(moving, phase, lr=settings.lr, weight_decay=settings.weight_decay)
        return build_optimizer(settings.name, groups, settings.options, fuse=recipe.trainer.fuses)

    kind = SolvedClassifier if recipe.solves(phase) else Classifier
    classifier = kind(
        network,
        replace(phase, epochs=1) if recipe.solves(phase) else phase,
        recipe.loss,
        build_optimizer=optimizer,
        build_scheduler=partial(build_scheduler, schedule=schedule_of(phase, recipe.schedule)),
        mixing=recipe.mixing,
        feature_mixing=recipe.feature_mixing,
        regularizer=recipe.regularizer,
        seed=recipe.seed,
        phase_index=index,
        steps_before=place.steps,
        epochs_before=place.epochs,
        monitor=recipe.monitor,
        channels_last=recipe.trainer.channels_last,
        image_weights=recipe.image_weights,
    )
    if isinstance(classifier, SolvedClassifier):
        classifier.plan = recipe.head
    return classifier


def schedule_of(phase: Phase, default: Schedule) -> Schedule:
    """Return the phase's own schedule where it names one, else the run's."""
    return Schedule(
        kind=phase.schedule or default.kind,  # type: ignore[arg-type]
        warmup=default.warmup if phase.warmup is None else phase.warmup,
        final=default.final,
        cycles=default.cycles,
    )


def predict_split(
    network: Network,
    images: ImageData,
    split: str,
    recipe: Recipe,
    device_pass: DevicePass,
    *,
    cached: bool = False,
    sample: npt.NDArray[np.int64] | None = None,
) -> NetworkOutputs:
    """Return what a trained network says of a split in all test views; all ranks share the images and get the same.

    Args:
        network: Predicts; it is on the CPU afterwards, as after a training.
        images: The images.
        split: train, val or test.
        recipe: The views, how features are kept, and how many batches are looked at.
        device_pass: Where, and by which ranks.
        cached: Whether the backbone's features are taken from the cache, or put there, on the way.
        sample: Rows whose features are wanted; None for none.
    """
    views, place = recipe.features.tta_views, {"rank": device_pass.rank, "world_size": device_pass.world_size}
    if cached:
        features = extract_features(network, images, images.table.rows(split), recipe.features, device_pass, views)
        loaders = [eval_loader(features, images, device_pass, view) for view in range(views)]
    else:
        loaders = [images.view_loader(split, view, **place) for view in range(views)]
    limited = [islice(loader, recipe.trainer.limit_batches) for loader in loaders]
    outputs = Predictor(network, device_pass, recipe.trainer.channels_last).over(limited, sample=sample)
    network.cpu()
    return outputs
