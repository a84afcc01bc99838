"""Class means as a head: scikit-learn's nearest centroid, leave-one-out by hand, and imprinted weights."""

import torch
from sklearn.neighbors import NearestCentroid
from torch import Tensor
from torch.nn import functional

from finetune.models.heads.nearest_class_mean import best_scale, imprinted, nearest_means


def test_head_predicts_the_nearest_mean(digit_features: tuple[Tensor, Tensor]) -> None:
    features, classes = digit_features
    features = features + 1e-3 * torch.rand(features.shape, generator=torch.Generator().manual_seed(0))
    weight, bias, scale = nearest_means(features, classes, torch.ones(400).double(), 10)
    expected = NearestCentroid().fit(features.numpy(), classes.numpy()).predict(features.numpy())
    logits = features @ weight.T + bias
    assert (logits.argmax(1).numpy() == expected).all()
    means = torch.stack([features[classes == label].mean(0) for label in range(10)])
    distances = -scale * torch.cdist(features, means).square() / 2
    assert torch.allclose(logits.softmax(1), distances.softmax(1), atol=1e-6)
    assert scale > 0


def by_hand(features: Tensor, classes: Tensor, angle: bool) -> Tensor:
    """Return logits (N, K) of each image by means that leave it out."""
    rows = []
    for index in range(len(features)):
        rest = torch.arange(len(features)) != index
        means = torch.stack([features[rest & (classes == label)].mean(0) for label in range(3)])
        if angle:
            rows.append(functional.normalize(means, dim=1) @ features[index])
        else:
            rows.append(-(features[index] - means).square().sum(1) / 2)
    return torch.stack(rows)


def test_scale_is_that_of_images_left_out() -> None:
    torch.manual_seed(0)
    classes, weights = torch.arange(24) % 3, torch.ones(24, dtype=torch.float64)
    features = torch.randn(24, 5, dtype=torch.float64) + torch.randn(3, 5, dtype=torch.float64)[classes]
    expected = best_scale(by_hand(features, classes, angle=False), classes, weights)
    assert abs(nearest_means(features, classes, weights, 3)[2] / expected - 1) < 1e-3
    unit = functional.normalize(features, dim=1)
    expected = best_scale(by_hand(unit, classes, angle=True), classes, weights)
    assert abs(imprinted(features, classes, weights, 3)[1] / expected - 1) < 1e-3


def test_imprinted_weights_are_normalised_means_of_normalised_features() -> None:
    torch.manual_seed(0)
    features, classes = torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 3
    vectors, _ = imprinted(features, classes, torch.ones(12, dtype=torch.float64), 3)
    unit = functional.normalize(features, dim=1)
    expected = torch.stack([unit[classes == label].mean(0) for label in range(3)])
    assert torch.allclose(vectors, functional.normalize(expected, dim=1))


def test_classes_of_one_image_have_no_part_in_the_scale() -> None:
    features, classes = torch.eye(3, dtype=torch.float64), torch.arange(3)
    weight, bias, scale = nearest_means(features, classes, torch.ones(3, dtype=torch.float64), 3)
    assert scale == 1.0
    assert torch.equal((features @ weight.T + bias).argmax(1), classes)
