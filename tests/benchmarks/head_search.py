"""How long choosing a head's strength takes, as a ratio against scikit-learn's logistic regression.

    python tests/benchmarks/head_search.py

Ours is the whole search, 30 strengths in 5 folds and the final fit, on features whose variances fall off as those of
a backbone do. Theirs is one fit of a fold at each of some strengths, in the same process, times the number of fits that
ours did. Both are repeated in turn; the ratio is that of the medians.
"""

import time
import warnings
from collections.abc import Callable
from statistics import median

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from finetune.models.heads.fit import HeadExamples, SolvedHead, fit_head
from finetune.models.heads.modules import HeadSpec, build_head
from finetune.models.heads.settings import SolverSettings

ROUNDS = 3
SIZES = ((207, 1280, 2), (2454, 1280, 10))
SAMPLED = 4  # strengths at which scikit-learn is timed


def features_of(images: int, width: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return features (N, F), none of them negative, and classes that overlap."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    spread = torch.arange(1, width + 1) ** -0.5
    latent = (
        torch.randn(images, width, generator=generator) + 0.5 * torch.randn(classes, width, generator=generator)[labels]
    )
    turned = (latent * spread) @ torch.randn(width, width, generator=generator)
    return turned.relu(), labels


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def search(features: Tensor, labels: Tensor, classes: int) -> SolvedHead:
    """Return the report of our search."""
    spec = HeadSpec(standardize=True)
    head = build_head(spec, features.shape[1], classes)
    return fit_head(head, spec, HeadExamples(features, labels, "multiclass", classes), SolverSettings("lbfgs", l2=None))


def their_fit(features: Tensor, labels: Tensor, strengths: list[float]) -> float:
    """Return the mean time of scikit-learn's fit of four fifths of the images."""
    ready = ((features - features.mean(0)) / features.std(0)).numpy()[: len(labels) * 4 // 5]
    models = [LogisticRegression(C=1 / (len(ready) * strength), max_iter=1000) for strength in strengths]
    classes = labels.numpy()[: len(ready)]
    return sum(seconds(lambda model=model: model.fit(ready, classes)) for model in models) / len(models)  # type: ignore[misc]


def main() -> None:
    """Time both in turn and print the ratios."""
    warnings.simplefilter("ignore")
    for size in SIZES:
        features, labels = features_of(*size)
        report = search(features, labels, size[2])
        tried = [point.strength for point in report.curve]
        sample = [tried[index * (len(tried) - 1) // (SAMPLED - 1)] for index in range(SAMPLED)]
        fits = len(tried) * report.folds + 1
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(seconds(lambda: search(features, labels, size[2])))  # noqa: B023
            theirs.append(fits * their_fit(features, labels, sample))
        print(
            f"N={size[0]} F={size[1]} K={size[2]}: {fits} fits in {median(ours):.2f} s, "
            f"{median(ours) / median(theirs):.3f} x scikit-learn ({median(theirs):.1f} s); l2={report.l2:.3g}"
        )


if __name__ == "__main__":
    main()
