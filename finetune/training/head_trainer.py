"""Heads trained or solved in this process on features that are computed once, for trials of a sweep and for folds.

A head is fitted step for step as a run does it, with the same batches, losses, optimizers, schedules and solvers, but
without the trainer around it, which would take longer than the training.
"""

import copy
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from finetune.config.settings.phases import Phase, Strategy
from finetune.config.settings.roots import TrainSettings
from finetune.data.sampling import TrainBatches
from finetune.data.table import SPLITS, ImageTable
from finetune.errors import RunError
from finetune.evaluation.metrics import compute_metrics
from finetune.evaluation.predictions import Predictions
from finetune.features.cached_features import CachedFeatures
from finetune.features.extract import FeatureSource
from finetune.features.feature_datamodule import EVAL_BATCH, FeatureData
from finetune.models.heads.fit import feature_statistics
from finetune.models.heads.modules import standardize_layer
from finetune.models.heads.settings import head_settings
from finetune.models.network import Network, new_head
from finetune.training.build import build_recipe, load_images, load_network, open_cache
from finetune.training.callbacks.epoch_metrics import monitored
from finetune.training.fit import Recipe, schedule_of
from finetune.training.freezing import apply_phase
from finetune.training.optimizers import build_optimizer, parameter_groups
from finetune.training.schedules import build_scheduler
from finetune.training.solved_head import HeadPlan, phase_examples, single_view, solve_on_features
from finetune.training.trainer import start_pass


class HeadTrainer:
    """The network, the images and the features that heads of many configurations share.

    Attributes:
        settings: Of the network, the images and the features.
        table: The images.
        network: Its backbone stands still.
    """

    def __init__(self, settings: TrainSettings, table: ImageTable, splits: Sequence[str] | None = None) -> None:
        """Load what a run of the configuration would; features that are in the cache are not computed again.

        Args:
            settings: The settings of a run.
            table: The images.
            splits: Those whose features are needed; None for all images, which change places between splits.
        """
        pl.seed_everything(settings.seed, verbose=False)
        self.settings, self.table, self.cache = settings, table, open_cache(settings.cache)
        self.network = load_network(settings, table)
        recipe = build_recipe(settings, table, self.cache)
        images = load_images(settings, table, self.network, self.cache)
        source = FeatureSource(self.network, images, recipe.features, start_pass(recipe.trainer))
        views = {"train": recipe.features.views, "val": recipe.features.tta_views}
        if splits is None:
            everything = source.features(np.arange(len(table)), max(views.values()))
            self.features = dict.fromkeys(SPLITS, everything)
        else:
            self.features = {split: source.features(table.rows(split), views[split]) for split in splits}
        self.network.cpu()
        self._places = {path: row for row, path in enumerate(table.frame["path"].tolist())}
        self._loop: HeadLoop | None = None

    def fit(self, settings: TrainSettings, table: ImageTable) -> tuple[Network, Recipe]:
        """Return a network whose head was trained on a table's train split, with its epoch chosen on val.

        Args:
            settings: Differ from those of the features in what heads are made with alone.
            table: The trainer's, or some of its images in splits of their own.
        """
        pl.seed_everything(settings.seed, verbose=False)
        recipe = build_recipe(settings, table, self.cache)
        loop, spec = self._loop_of(settings, table, recipe), head_settings(settings.head, seed=settings.seed)[0]
        fresh = self.network
        network = Network(
            fresh.backbone, new_head(spec, fresh.num_features, fresh.num_classes), name=fresh.name, spec=fresh.spec,
            num_features=fresh.num_features, num_classes=fresh.num_classes,
            options=fresh.options | {"head": vars(spec)}, frames=fresh.frames,
        )  # fmt: skip
        loop.network.head = network.head
        loop.fit(settings.strategy, recipe, mode=settings.mode)
        return network.eval(), recipe

    def features_of(self, table: ImageTable, split: str, views: int) -> CachedFeatures:
        """Return the features of a split of a table, whose images are found by their paths."""
        rows = table.rows(split)
        paths = table.frame["path"].iloc[rows].tolist()
        known = rows.tolist() if table is self.table else [self._places[path] for path in paths]
        return self.features[split].renumbered(rows, known, views)

    @torch.no_grad()
    def logits(self, network: Network, table: ImageTable, split: str, views: int) -> npt.NDArray[np.float32]:
        """Return what a head says of a split (V, N, K), in each view."""
        loop = self._loop
        if split == "val" and loop is not None and loop.data.images.table is table:
            shown = loop.val_views[:views]
        else:
            found = self.features_of(table, split, views)
            shown = [single_view(found, view) for view in range(views)]
        return np.asarray(torch.stack([network.head(view) for view in shown]).numpy(), np.float32)

    def val_scores(self, settings: TrainSettings, table: ImageTable) -> dict[str, float]:
        """Return each metric of a head that is fitted to a table, on the table's val split."""
        network, recipe = self.fit(settings, table)
        logits = self.logits(network, table, "val", recipe.features.tta_views)
        return compute_metrics(Predictions.from_logits(table, table.rows("val"), logits))

    def _loop_of(self, settings: TrainSettings, table: ImageTable, recipe: Recipe) -> "HeadLoop":
        """Return what fits heads to a table's features, which stay in memory as long as no other table is asked for."""
        if self._loop is None or self._loop.data.images.table is not table:
            images, features = load_images(settings, table, self.network, self.cache), recipe.features
            data = FeatureData(images, batch_size=recipe.head_batch_size, seed=recipe.seed, settings=features)
            views = {"train": features.views, "val": features.tta_views}
            data.found = {split: self.features_of(table, split, number) for split, number in views.items()}
            self._loop = HeadLoop(self.network, data)
        return self._loop


class HeadLoop:
    """Fits heads to the same features, one after the other.

    Attributes:
        network: Its head is the one that is fitted.
        data: The features of the train and val splits.
    """

    def __init__(self, network: Network, data: FeatureData) -> None:
        """Read the features into memory; of the network nothing is needed but what it is."""
        self.network = Network(
            nn.Identity(), network.head, name=network.name, spec=network.spec, num_features=network.num_features,
            num_classes=network.num_classes, options=network.options,
        )  # fmt: skip
        self.data = data
        train, val = data.features("train"), data.features("val")
        self.rows = train.rows
        self.train_features = torch.stack([single_view(train, view) for view in range(train.views)])
        self.val_views = [single_view(val, view) for view in range(val.views)]
        targets = torch.from_numpy(data.images.table.targets())
        self.train_targets, self.targets = targets[train.rows], targets[val.rows]

    def fit(self, strategy: Strategy, recipe: Recipe, *, mode: str) -> None:
        """Fit the network's head by a strategy whose phases are all at rest, and keep its best epoch.

        Args:
            strategy: The phases.
            recipe: Loss, optimizer, schedule and solver.
            mode: Whether the monitored value is better when higher (max) or lower (min).

        Raises:
            RunError: The loss or the monitored value is not a number.
        """
        best = _BestEpoch(recipe.monitor, mode)
        for index, phase in enumerate(strategy.phases):
            apply_phase(self.network, phase)
            if recipe.solves(phase):
                solve_on_features(self.network.head, self.data, recipe.loss, recipe.head, recipe.image_weights)
                best.look(self.network.head, *self.validate(recipe))
            else:
                self.train(phase, index, recipe, best)
        self.network.head.load_state_dict(best.state)

    def train(self, phase: Phase, index: int, recipe: Recipe, best: "_BestEpoch") -> None:
        """Train the head for the epochs of a phase."""
        head, settings = self.network.head, recipe.optimizer
        layer = standardize_layer(head)
        if layer is not None:
            layer.set_statistics(*feature_statistics(phase_examples(self.data, recipe.loss, HeadPlan())))
        groups = parameter_groups(self.network, phase, lr=settings.lr, weight_decay=settings.weight_decay)
        optimizer = build_optimizer(settings.name, groups, settings.options)
        images, places = self.data.images, np.arange(len(self.rows))
        batches = images.balance.batches(images.table, places, recipe.head_batch_size, seed=recipe.seed)
        scheduler = build_scheduler(
            optimizer, max(1, len(batches) * phase.epochs), schedule=schedule_of(phase, recipe.schedule)
        )
        for epoch in range(phase.epochs):
            # dropout is the same function of its place as in a run
            state = np.random.SeedSequence([recipe.seed, index, epoch, 0]).generate_state(1)
            torch.random.default_generator.manual_seed(int(state[0]))  # type: ignore[attr-defined]
            head.train()
            batches.set_epoch(epoch)
            for features, target, rows in self.batches(batches):
                optimizer.zero_grad()
                if recipe.feature_mixing is not None:
                    mixed = recipe.feature_mixing({"features": features, "target": target})
                    features, target = mixed["features"], mixed["target"]
                counted = () if recipe.image_weights is None else (recipe.image_weights[rows],)
                loss, penalty = recipe.loss(head(features), target, *counted), recipe.regularizer.penalty(self.network)
                (loss if penalty is None else loss + penalty).backward()
                if recipe.trainer.gradient_clip:
                    nn.utils.clip_grad_norm_(head.parameters(), recipe.trainer.gradient_clip)
                optimizer.step()
                recipe.regularizer.shrink(optimizer)
                scheduler.step()
                _check_finite("The training loss", float(loss.detach()))
            best.look(head, *self.validate(recipe))

    def batches(self, batches: TrainBatches) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield features (B, F), targets and the table's rows (B,) of an epoch's batches; a seed chooses the view."""
        order, views = torch.from_numpy(batches.order()), len(self.train_features)
        chosen = torch.from_numpy(batches.seeds() % views) if views > 1 else torch.zeros_like(order)
        start = 0
        for size in batches.sizes():
            rows, which = order[start : start + size], chosen[start : start + size]
            yield self.train_features[which, rows], self.train_targets[rows], torch.from_numpy(self.rows)[rows]
            start += size

    @torch.no_grad()
    def validate(self, recipe: Recipe) -> tuple[float, float]:
        """Return the monitored value and the loss on the val split."""
        head = self.network.head.eval()
        parts = [head(part) for part in torch.split(self.val_views[0], EVAL_BATCH)]
        pairs = zip(parts, torch.split(self.targets, EVAL_BATCH), strict=True)
        loss = sum(float(recipe.loss(logits, target)) * len(target) for logits, target in pairs) / len(self.targets)
        return self.monitored(recipe.monitor, torch.cat(parts), loss), loss

    def monitored(self, monitor: str, logits: Tensor, loss: float) -> float:
        """Return one validation metric, as it is computed while a run trains."""
        table = self.data.images.table
        if monitor == "val/accuracy" and table.task == "multiclass":  # the same, and faster in many short trials
            return float((logits.argmax(1) == self.targets).float().mean())
        return monitored(monitor, logits, self.targets, loss, table.task, table.num_classes)


class _BestEpoch:
    """The best epoch so far; a tie is broken by the lower validation loss, as in a run's checkpoints.

    Attributes:
        state: Weights of the head.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        """Begin with none."""
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.score: tuple[float, float] | None = None
        self.state: dict[str, Tensor] = {}

    def look(self, head: nn.Module, value: float, loss: float) -> None:
        """Keep the head's weights if they are the best."""
        _check_finite(self.monitor, value)
        score = (self.sign * value, -loss)
        if self.score is None or score > self.score:
            self.score = score
            self.state = copy.deepcopy(head.state_dict())


def _check_finite(what: str, value: float) -> None:
    """Check that a value is a number.

    Raises:
        RunError: It is none.
    """
    if not math.isfinite(value):
        raise RunError(f"{what} is {value}. Lower the learning rate.")
