"""Label errors by confident learning (cleanlab), on what heads say of images that they were not fitted to."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from finetune.data.table import LabelTask
from finetune.models.heads.fit import HeadExamples, fit_head
from finetune.models.heads.modules import HeadSpec, build_head
from finetune.models.heads.penalty_cv import make_label_folds, rarest_label
from finetune.models.heads.settings import SolverSettings

_HEAD = HeadSpec(standardize=True)


@dataclass(frozen=True)
class LabelIssues:
    """What is thought of each label.

    Attributes:
        probabilities: Of each class by heads that have not seen the image (N, K); NaN where none could be fitted.
        quality: Of each image's label (N,), 0 to 1; low where it is likely wrong, NaN where nothing is known.
        wrong: Whether the label is likely wrong (N,).
    """

    probabilities: npt.NDArray[np.float64]
    quality: npt.NDArray[np.float64]
    wrong: npt.NDArray[np.bool_]


def find_label_issues(examples: HeadExamples, *, folds: int, seed: int) -> LabelIssues:
    """Return which labels are likely wrong.

    Args:
        examples: Features and labels of all images; images of one group are never on two sides of a fold.
        folds: Of the cross-validation.
        seed: Deals the images out to folds.

    Source: Northcutt, Jiang and Chuang 2021, Confident learning: estimating uncertainty in dataset labels, section 3.
    """
    probabilities = held_out_probabilities(examples, folds, seed)
    known = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    quality, wrong = np.full(len(probabilities), np.nan), np.zeros(len(probabilities), bool)
    if len(known):
        targets = examples.targets.cpu().numpy()[known]
        quality[known], wrong[known] = _judge(targets, probabilities[known], examples.task)
    return LabelIssues(probabilities, quality, wrong)


def held_out_probabilities(examples: HeadExamples, folds: int, seed: int) -> npt.NDArray[np.float64]:
    """Return the probabilities (N, K) of heads that have not seen the image; NaN where it could not be held out.

    The strength of the penalty is chosen once, by cross-validation on all images.
    """
    several = examples.task == "multilabel"
    labels = rarest_label(examples.targets) if several else examples.targets
    folding = make_label_folds(labels.cpu().numpy(), folds, seed, examples.groups)
    result = np.full((len(folding), examples.num_classes), np.nan)
    if folding.max(initial=-1) < 1:
        return result
    strength = _fitted(examples, SolverSettings("lbfgs", l2=None, folds=folds, seed=seed))[1]
    for fold in range(int(folding.max()) + 1):
        rows = torch.from_numpy(np.flatnonzero(folding == fold))
        rest = torch.from_numpy(np.flatnonzero(folding != fold))
        groups = None if examples.groups is None else examples.groups[rest.numpy()]
        part = replace(examples, features=examples.features[rest], targets=examples.targets[rest], groups=groups)
        head = _fitted(part, SolverSettings("lbfgs", l2=strength, folds=folds, seed=seed))[0]
        with torch.no_grad():
            logits = head(examples.features[rows])
        found = logits.sigmoid() if several else logits.softmax(dim=1)
        result[rows.numpy()] = found.double().numpy()
    return result


def _fitted(examples: HeadExamples, settings: SolverSettings) -> tuple[torch.nn.Module, float]:
    """Return a head that fits the examples, and the strength of its penalty."""
    with torch.random.fork_rng(devices=[]):
        head = build_head(_HEAD, examples.features.shape[1], examples.num_classes)
    solved = fit_head(head, _HEAD, examples, settings)
    return head.eval(), solved.l2


def _judge(
    targets: npt.NDArray[np.generic], probabilities: npt.NDArray[np.float64], task: LabelTask
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the quality of each label (N,), and whether it is likely wrong (N,)."""
    if task == "multilabel":
        from cleanlab.multilabel_classification import get_label_quality_scores as quality_of
        from cleanlab.multilabel_classification.filter import find_label_issues as find

        names = [np.flatnonzero(row > 0.5).tolist() for row in targets]
        return np.asarray(quality_of(names, probabilities)), np.asarray(find(names, probabilities, n_jobs=1), bool)
    from cleanlab.filter import find_label_issues as find_one
    from cleanlab.rank import get_label_quality_scores

    present, numbers = np.unique(targets, return_inverse=True)  # cleanlab wants an image of every class
    share = probabilities[:, present]
    share = share / share.sum(axis=1, keepdims=True)
    wrong = find_one(numbers, share, filter_by="prune_by_noise_rate", n_jobs=1)
    return np.asarray(get_label_quality_scores(numbers, share)), np.asarray(wrong, bool)
