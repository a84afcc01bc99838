"""Labels that were turned on purpose are found, by heads that have not seen the image."""

import numpy as np
import torch

from finetune.audit.label_errors import find_label_issues, held_out_probabilities
from finetune.models.heads.fit import HeadExamples


def blobs(count: int = 300, *, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features (N, F) in clouds around the corners of a simplex, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % classes
    centres = 4 * torch.eye(classes, 8)
    return centres[targets] + torch.randn(count, 8, generator=generator), targets


def test_turned_labels_are_found_first() -> None:
    features, truth = blobs()
    turned = np.random.default_rng(0).permutation(300)[:15]
    labels = truth.clone()
    labels[turned] = (labels[turned] + 1) % 3
    found = find_label_issues(HeadExamples(features, labels, "multiclass", 3), folds=5, seed=0)
    worst = np.argsort(found.quality)[:15]
    assert len(set(worst) & set(turned)) >= 13
    assert found.wrong[turned].mean() > 0.7
    assert found.wrong.sum() <= 25
    assert (found.probabilities[turned].argmax(1) == truth.numpy()[turned]).mean() > 0.8


def test_turned_labels_are_found_where_an_image_has_several() -> None:
    features, truth = blobs(classes=4)
    labels = torch.nn.functional.one_hot(truth, 4).float()
    labels[:, 3] = (features[:, 0] > 2).float()
    turned = np.arange(0, 300, 25)
    labels[turned, 1] = 1 - labels[turned, 1]
    found = find_label_issues(HeadExamples(features, labels, "multilabel", 4), folds=4, seed=0)
    assert found.wrong[turned].mean() > 0.6
    assert len(set(np.argsort(found.quality)[:24]) & set(turned)) >= 8


def test_an_image_is_judged_by_heads_that_have_not_seen_it_or_its_group() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(40, 60, generator=generator)  # more features than images: each can be learnt by heart
    labels = torch.arange(40) % 2
    twice, both = features.repeat(2, 1), labels.repeat(2)
    alone = held_out_probabilities(HeadExamples(twice, both, "multiclass", 2), 5, 0)
    grouped = held_out_probabilities(HeadExamples(twice, both, "multiclass", 2, groups=np.tile(np.arange(40), 2)), 5, 0)
    assert (alone.argmax(1) == both.numpy()).mean() > 0.9, "its copy gives an image away"
    assert (grouped.argmax(1) == both.numpy()).mean() < 0.75


def test_classes_of_a_single_image_are_not_judged() -> None:
    features, truth = blobs(60)
    truth[0] = 3
    found = find_label_issues(HeadExamples(features, truth, "multiclass", 4), folds=3, seed=0)
    assert np.isnan(found.quality[0])
    assert not found.wrong[0]
