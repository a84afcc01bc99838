"""Crop mode by a cross-validated probe of each: the central crop, or the whole image."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from finetune.config.settings.phases import Strategy
from finetune.config.settings.roots import TrainSettings
from finetune.data.cache.store import Cache
from finetune.data.table import ImageTable
from finetune.features.extract import FeatureSettings, extract_features
from finetune.models.heads.fit import fit_head
from finetune.models.heads.modules import HeadSpec, build_head
from finetune.models.heads.penalty_cv import PenaltyScore
from finetune.models.heads.settings import SolverSettings
from finetune.search.autoconfig.dataset_facts import DatasetFacts
from finetune.search.autoconfig.rules import RecipeChoice
from finetune.training.build import load_network, load_plain_images, prepare_machine
from finetune.training.solved_head import HeadPlan, head_examples
from finetune.training.trainer import start_pass

KEY = "data.crop_mode"
OWN, WHOLE = "center", "squash"
_FOLDS = 5
_FEW = 20  # training images of the median class, below which a probe tells nothing
# training images up to which a second pass is worth it, by whether the network is computed on a CPU
MOST_IMAGES = {True: 10_000, False: 100_000}
_HEAD = HeadSpec(standardize=True)


def is_open(facts: DatasetFacts, settings: TrainSettings, free: Callable[[str], bool]) -> bool:
    """Return whether there is something to choose, and images enough to choose by."""
    few = facts.per_class < _FEW or facts.train > MOST_IMAGES[facts.on_cpu]
    typed = not all(map(free, (KEY, "model.crop_mode", "model.crop_pct")))
    return not (few or typed or facts.task != "multiclass" or settings.model.weights == "none")


def choose_crop(
    table: ImageTable, cache: Cache | None, recompose: Callable[[Sequence[str]], TrainSettings]
) -> list[RecipeChoice]:
    """Return whole images where they are more likely to be told apart, by more than a standard error; else nothing.

    Both are judged by the held-out likelihood of a logistic regression on the training images' features, which the
    cache keeps for the run.
    """
    points = {mode: probe(recompose([f"{KEY}={mode}"]), table, cache) for mode in (OWN, WHOLE)}
    own, whole = points[OWN], points[WHOLE]
    if not whole.nll + max(own.error, whole.error) < own.nll:
        return []
    losses = f"held-out loss {whole.nll:.3g} beside {own.nll:.3g} of the central crop"
    return [RecipeChoice(KEY, WHOLE, f"whole images are told apart better: {losses}")]


def probe(settings: TrainSettings, table: ImageTable, cache: Cache | None) -> PenaltyScore:
    """Return how well a linear probe does on held-out training images, with the strength that suits them best."""
    network = load_network(replace(settings, strategy=Strategy("probe", ())), table)
    images = load_plain_images(settings, settings.trainer, table, network, cache)
    device_pass = start_pass(prepare_machine(settings.trainer))
    features = extract_features(network, images, table.rows("train"), FeatureSettings(cache=cache), device_pass)
    plan = HeadPlan(_HEAD, group=settings.data.splits.group)
    examples = head_examples(features, images, torch.nn.CrossEntropyLoss(), plan)
    head = build_head(_HEAD, network.num_features, network.num_classes)
    solver = SolverSettings("lbfgs", l2=None, folds=_FOLDS, seed=settings.seed)
    return min(fit_head(head, _HEAD, examples, solver).curve, key=lambda point: point.nll)
