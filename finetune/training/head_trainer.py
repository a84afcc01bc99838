"""A head trained or solved on features in memory, step for step as a run does it, without the trainer around it.

It is for many short trials, where the trainer would take longer than the training.
"""

import copy
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from finetune.config.settings.phases import Phase, Strategy
from finetune.data.sampling import TrainBatches
from finetune.errors import RunError
from finetune.features.feature_datamodule import EVAL_BATCH, FeatureData
from finetune.models.heads.fit import feature_statistics
from finetune.models.heads.modules import standardize_layer
from finetune.models.network import Network
from finetune.training.callbacks.epoch_metrics import monitored
from finetune.training.fit import Recipe, schedule_of
from finetune.training.freezing import apply_phase
from finetune.training.optimizers import build_optimizer, parameter_groups
from finetune.training.schedules import build_scheduler
from finetune.training.solved_head import HeadPlan, phase_examples, single_view, solve_on_features


class HeadTrainer:
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
        self.val_features = single_view(val, 0)
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
            seed_head(recipe.seed, index, epoch)
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
        parts = [head(part) for part in torch.split(self.val_features, EVAL_BATCH)]
        pairs = zip(parts, torch.split(self.targets, EVAL_BATCH), strict=True)
        loss = sum(float(recipe.loss(logits, target)) * len(target) for logits, target in pairs) / len(self.targets)
        return self.monitored(recipe.monitor, torch.cat(parts), loss), loss

    def monitored(self, monitor: str, logits: Tensor, loss: float) -> float:
        """Return one validation metric, as it is computed while a run trains."""
        table = self.data.images.table
        if monitor == "val/accuracy" and table.task == "multiclass":  # the same, and faster in many short trials
            return float((logits.argmax(1) == self.targets).float().mean())
        return monitored(monitor, logits, self.targets, loss, table.task, table.num_classes)


def seed_head(seed: int, phase: int, epoch: int) -> None:
    """Make a head's dropout the same function of its place as in a run."""
    state = np.random.SeedSequence([seed, phase, epoch, 0]).generate_state(1)
    torch.random.default_generator.manual_seed(int(state[0]))  # type: ignore[attr-defined]


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
