"""AdaBoost as a head: small trees over the features, each fitted to what the ones before get wrong, that vote."""

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import AdaBoostClassifier
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn
from torch.nn import functional


class BoostedTrees(nn.Module):
    """Features (B, F) to logits (B, K): the votes of trees, by their weights.

    A tree is stored whole, as if all its branches were as long as the longest.

    Source: Zhu et al. 2009, Multi-class AdaBoost, algorithm 2 (SAMME).
    """

    def __init__(self, num_classes: int, *, rounds: int, depth: int) -> None:
        """Make so many trees of that depth, which all say the first class until they are fitted."""
        super().__init__()
        self.num_classes = num_classes
        self.depth = depth
        nodes = 2**depth - 1
        self.feature: Tensor
        self.threshold: Tensor
        self.label: Tensor
        self.register_buffer("feature", torch.zeros(rounds, nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.full((rounds, nodes), torch.inf))
        self.register_buffer("label", torch.zeros(rounds, nodes + 1, dtype=torch.int64))
        self.votes = nn.Parameter(torch.full((rounds,), 1 / rounds))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, K), of which the softmax is what AdaBoost calls probabilities."""
        trees = torch.arange(len(self.votes), device=features.device)
        place = torch.zeros(len(features), len(self.votes), dtype=torch.int64, device=features.device)
        for _ in range(self.depth):
            value = features.float().gather(1, self.feature[trees, place])
            place = 2 * place + 1 + (value > self.threshold[trees, place]).long()
        said = functional.one_hot(self.label[trees, place - (2**self.depth - 1)], self.num_classes)
        others = 1 / (self.num_classes - 1)
        decision = (self.votes[:, None] * (said * (1 + others) - others)).sum(1)
        return decision / self.votes.sum().clamp(min=torch.finfo(torch.float32).tiny) / (self.num_classes - 1)


def fit_boosted(
    trees: BoostedTrees,
    features: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    seed: int,
) -> int:
    """Fit trees to images, and return how many there are; it ends earlier where one is right on all images.

    Args:
        trees: Changed in place.
        features: (N, F).
        classes: (N,).
        weights: What each image counts (N,).
        seed: Decides between splits that are equally good.
    """
    options: dict[str, Any] = {}
    algorithm = inspect.signature(AdaBoostClassifier).parameters.get("algorithm")
    if algorithm is not None and algorithm.default == "SAMME.R":  # before scikit-learn 1.6 there were two
        options["algorithm"] = "SAMME"
    model = AdaBoostClassifier(
        DecisionTreeClassifier(max_depth=trees.depth), n_estimators=len(trees.votes), random_state=seed, **options
    )
    model.fit(features, classes, sample_weight=weights)
    with torch.no_grad():
        trees.votes.zero_()
        for number, estimator in enumerate(model.estimators_):
            write_tree(trees, number, estimator)
            trees.votes[number] = float(model.estimator_weights_[number])
    return len(model.estimators_)


def write_tree(trees: BoostedTrees, number: int, estimator: Any) -> None:
    """Write a tree of scikit-learn's into the tensors."""
    tree, nodes = estimator.tree_, 2**trees.depth - 1

    def write(place: int, node: int) -> None:
        leaf = tree.children_left[node] == tree.children_right[node]
        if place >= nodes:
            trees.label[number, place - nodes] = int(estimator.classes_[tree.value[node].argmax()])
            return
        if not leaf:
            trees.feature[number, place] = int(tree.feature[node])
            trees.threshold[number, place] = below(float(tree.threshold[node]))
        for side, child in enumerate((tree.children_left[node], tree.children_right[node])):
            write(2 * place + 1 + side, node if leaf else int(child))

    write(0, 0)


def below(threshold: float) -> float:
    """Return the largest float32 that is not above a threshold, so that no float32 changes sides."""
    rounded = np.float32(threshold)
    return float(np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > threshold else rounded)
