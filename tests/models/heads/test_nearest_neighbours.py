"""Nearest neighbours against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from finetune.errors import ConfigError
from finetune.models.heads.nearest_neighbours import neighbour_probabilities


def test_votes_are_those_of_scikit_learn(digit_features: tuple[Tensor, Tensor]) -> None:
    features, classes = digit_features
    known, queries = features[:300], features[300:]
    found = neighbour_probabilities(known, classes[:300], queries, num_classes=10, neighbours=7, chunk=33)
    model = KNeighborsClassifier(7, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = model.fit(known.numpy(), classes[:300].numpy()).predict_proba(queries.numpy())
    assert np.allclose(found.numpy(), expected, atol=1e-4)


def test_labels_are_voted_on_each_by_itself() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(30, 4), (torch.rand(30, 3) < 0.5).long()
    found = neighbour_probabilities(features, labels, features[:5], num_classes=3, neighbours=6)
    for label in range(3):
        alone = neighbour_probabilities(features, labels[:, label], features[:5], num_classes=2, neighbours=6)
        assert torch.allclose(found[:, label], alone[:, 1])


def test_fewer_images_than_neighbours_all_vote() -> None:
    found = neighbour_probabilities(torch.eye(3), torch.arange(3), torch.eye(3), num_classes=3, neighbours=20)
    assert torch.equal(found.argmax(1), torch.arange(3))
    with pytest.raises(ConfigError, match="neighbours=0"):
        neighbour_probabilities(torch.eye(3), torch.arange(3), torch.eye(3), num_classes=3, neighbours=0)
