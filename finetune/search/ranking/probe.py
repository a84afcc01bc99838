"""Linear probe, cross-validated, and LogME: what features are worth for some images."""

from dataclasses import dataclass

import torch

from finetune.models.heads.fit import HeadExamples, fit_head
from finetune.models.heads.modules import HeadSpec, build_head
from finetune.models.heads.settings import SolverSettings
from finetune.search.ranking.logme import logme

PROBE = HeadSpec(standardize=True)


@dataclass(frozen=True)
class ProbeScore:
    """How good features are.

    Attributes:
        accuracy: Of a linear probe on held-out training images, with the strength that makes them most likely.
        accuracy_error: Its standard error over the folds.
        nll: Their negative log-likelihood.
        nll_error: Its standard error over the folds.
        logme: Logarithm of the maximum evidence per image.
        folds: Of the cross-validation.
    """

    accuracy: float
    accuracy_error: float
    nll: float
    nll_error: float
    logme: float
    folds: int


def score_features(examples: HeadExamples, *, folds: int, seed: int) -> ProbeScore:
    """Return how good features are.

    The probe is a logistic regression on standardised features. Its strength is chosen on the same folds that score it,
    which flatters all backbones alike and slightly.

    Args:
        examples: The training images' features and targets.
        folds: Of the cross-validation.
        seed: Deals the images out to folds.

    Raises:
        ConfigError: There are too few images to hold some out.
    """
    features = examples.features
    with torch.random.fork_rng(devices=[]):
        head = build_head(PROBE, features.shape[1], examples.num_classes)
    solved = fit_head(head, PROBE, examples, SolverSettings("lbfgs", l2=None, folds=folds, seed=seed))
    best = min(solved.curve, key=lambda point: point.nll)
    found = logme(features, examples.targets, examples.num_classes)
    return ProbeScore(best.accuracy, best.accuracy_error, best.nll, best.error, found, solved.folds)
