"""Head-only trials, all of them in this process, on features that are computed once."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytorch_lightning as pl
import torch

from finetune.config.settings.roots import TrainSettings
from finetune.data.datamodule import ImageData
from finetune.data.table import ImageTable
from finetune.errors import FinetuneError
from finetune.evaluation.metrics import compute_metrics
from finetune.evaluation.predictions import Predictions
from finetune.features.extract import FeatureSource
from finetune.features.feature_datamodule import FeatureData
from finetune.models.heads.settings import head_settings
from finetune.models.network import Network, new_head
from finetune.runtime.log_filters import quieten
from finetune.search.multirun.scheduler import Stop
from finetune.search.spaces.space import SettingValue
from finetune.search.study.loop import FailurePolicy
from finetune.search.study.samplers import SearchObjective
from finetune.search.study.study import Search, TrialResult, TrialSpec
from finetune.training.build import build_recipe, known_files, load_images, load_network, load_table, open_cache
from finetune.training.head_trainer import HeadTrainer
from finetune.training.trainer import start_pass


class HeadTrials:
    """The images, the network and the features that all trials share."""

    def __init__(self, settings: TrainSettings, objectives: Sequence[SearchObjective]) -> None:
        """Load them, as a run of the configuration would; features that are in the cache are not computed again."""
        quieten()
        pl.seed_everything(settings.seed, verbose=False)
        self.objectives = objectives
        self.cache = open_cache(settings.cache)
        self.table: ImageTable = load_table(settings.data, known=known_files(self.cache))
        network: Network = load_network(settings, self.table)
        recipe = build_recipe(settings, self.table, self.cache)
        images: ImageData = load_images(settings, self.table, network, self.cache)
        source = FeatureSource(network, images, recipe.features, start_pass(recipe.trainer))
        self.data = FeatureData(images, batch_size=recipe.head_batch_size, seed=recipe.seed, settings=recipe.features)
        val = self.table.rows("val")
        self.data.found = {
            "train": source.features(self.table.rows("train"), recipe.features.views),
            "val": source.features(val, recipe.features.tta_views),
        }
        self.fitter = HeadTrainer(network.cpu(), self.data)
        self.views = [
            self.data.found["val"].take(val, np.full(len(val), view)) for view in range(recipe.features.tta_views)
        ]

    def run(self, settings: TrainSettings) -> TrialResult:
        """Fit a head and return its scores on the val split."""
        pl.seed_everything(settings.seed, verbose=False)
        recipe = build_recipe(settings, self.table, self.cache)
        spec = head_settings(settings.head, seed=settings.seed)[0]
        network = self.fitter.network
        network.head = new_head(spec, network.num_features, network.num_classes)
        self.fitter.fit(settings.strategy, recipe, mode=settings.mode)
        return self.result()

    @torch.no_grad()
    def result(self) -> TrialResult:
        """Return the objectives of the head."""
        head = self.fitter.network.head.eval()
        logits = torch.stack([head(view) for view in self.views])
        scores = compute_metrics(Predictions.from_logits(self.table, self.table.rows("val"), logits.numpy()))
        values = [scores[each.name.removeprefix("val/")] for each in self.objectives]
        for objective, value in zip(self.objectives, values, strict=True):
            if not np.isfinite(value):
                return TrialResult("failed", cause=f"{objective.name} is not a number")
        return TrialResult("complete", tuple(values))


def run_head_trials(
    search: Search,
    trials: HeadTrials,
    configured: Callable[[Mapping[str, SettingValue]], TrainSettings],
    policy: FailurePolicy,
    stop: Stop,
    left: Sequence[TrialSpec],
    *,
    on_end: Callable[[TrialSpec, TrialResult], None],
) -> bool:
    """Run the trials of a search one after the other in this process; return whether a failure has ended it.

    Args:
        search: Says what to try.
        trials: Runs it.
        configured: Makes a trial's settings of its values.
        policy: When to end; what fails here would fail again, and is not retried.
        stop: Says when the user or the system wants it to end.
        left: Trials that an earlier process began.
        on_end: Told of each trial that has ended.
    """
    begun = time.monotonic()
    waiting = list(left)
    while not stop.asked and (policy.timeout is None or time.monotonic() - begun < policy.timeout):
        asked = waiting.pop(0) if waiting else search.ask()
        if asked is None:
            return False
        started = time.monotonic()
        try:
            result = trials.run(configured(asked.values))
        except FinetuneError as error:
            result = TrialResult("failed", cause=str(error))
        except Exception as error:  # noqa: BLE001 - whatever a trial dies of, it dies alone
            result = TrialResult("failed", cause=f"{type(error).__name__}: {error}")
        search.note(asked.number, seconds=round(time.monotonic() - started, 3), slot="in process", attempts=1)
        search.tell(asked.number, result)
        on_end(asked, result)
        if result.state == "failed" and policy.on_failure == "stop":
            return True
    return False
