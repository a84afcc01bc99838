"""Losses equal torch's own and their closed forms; class weights equal scikit-learn's."""

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from finetune.errors import ConfigError
from finetune.training.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    GeneralisedCrossEntropy,
    check_task,
    class_weights,
    is_convex,
)

WEIGHTS = torch.tensor([0.5, 1.0, 3.0, 0.1])


@pytest.fixture
def logits() -> torch.Tensor:
    """Logits of 6 images and 4 classes."""
    return 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hard() -> torch.Tensor:
    """Classes of the 6 images."""
    return torch.tensor([0, 1, 2, 3, 2, 0])


@pytest.fixture
def soft() -> torch.Tensor:
    """Class probabilities of the 6 images."""
    return torch.rand(6, 4, generator=torch.Generator().manual_seed(1)).softmax(dim=1)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_cross_entropy_equals_torch(
    request: pytest.FixtureRequest, logits: torch.Tensor, weights: torch.Tensor | None, smoothing: float, kind: str
) -> None:
    target = request.getfixturevalue(kind)
    expected = functional.cross_entropy(logits, target, weight=weights, label_smoothing=smoothing, reduction="none")
    found = CrossEntropy(smoothing, weights)(logits, target)
    assert torch.allclose(found, expected.mean())


@pytest.mark.parametrize("loss", [CrossEntropy, Focal])
def test_one_hot_targets_equal_hard_targets(loss: type, logits: torch.Tensor, hard: torch.Tensor) -> None:
    one_hot = functional.one_hot(hard, 4).float()
    assert torch.allclose(loss()(logits, one_hot), loss()(logits, hard))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_focal_with_gamma_0_is_cross_entropy(
    request: pytest.FixtureRequest, logits: torch.Tensor, weights: torch.Tensor | None, kind: str
) -> None:
    target = request.getfixturevalue(kind)
    expected = functional.cross_entropy(logits, target, weight=weights, reduction="none").mean()
    assert torch.allclose(Focal(0.0, weights)(logits, target), expected, atol=1e-6)


@pytest.mark.parametrize(
    "loss", [CrossEntropy(0.1, WEIGHTS), Focal(2.0, WEIGHTS), GeneralisedCrossEntropy(0.7, WEIGHTS)]
)
def test_the_mean_over_batches_is_the_loss_of_all_images(
    loss: torch.nn.Module, logits: torch.Tensor, hard: torch.Tensor
) -> None:
    batches = [loss(logits[part], hard[part]) for part in (slice(0, 3), slice(3, 6))]
    assert torch.allclose(sum(batches) / 2, loss(logits, hard))


@given(probability=st.floats(0.01, 0.99), gamma=st.floats(0, 5))
def test_focal_of_two_classes_is_its_closed_form(probability: float, gamma: float) -> None:
    logits = torch.tensor([[np.log(probability), np.log(1 - probability)]])
    found = Focal(gamma)(logits, torch.tensor([0]))
    assert float(found) == pytest.approx(-((1 - probability) ** gamma) * np.log(probability), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_has_finite_gradients_where_the_network_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    Focal(gamma)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_bce_equals_torch_on_smoothed_targets_with_positive_weights(logits: torch.Tensor) -> None:
    target = (torch.arange(24).reshape(6, 4) % 3 == 0).float()
    expected = functional.binary_cross_entropy_with_logits(logits, 0.9 * target + 0.05, pos_weight=WEIGHTS)
    assert torch.allclose(BinaryCrossEntropy(0.1, WEIGHTS)(logits, target), expected)


@pytest.mark.parametrize("loss", [CrossEntropy(), Focal(), BinaryCrossEntropy()])
def test_losses_of_half_precision_logits_are_computed_in_single_precision(loss: torch.nn.Module) -> None:
    logits, target = torch.full((2, 3), 4.0, dtype=torch.bfloat16), torch.full((2, 3), 1 / 3)
    assert loss(logits, target).dtype == torch.float32


def test_class_weights_equal_balanced_of_scikit_learn() -> None:
    targets = np.array([0] * 50 + [1] * 7 + [2] * 23)
    found = class_weights(torch.from_numpy(targets), "multiclass", 3)
    assert found.numpy() == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=targets), rel=1e-6)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_class_weights_have_mean_1_over_images(targets: list[int]) -> None:
    classes = torch.tensor(targets)
    weights = class_weights(classes, "multiclass", 6)
    assert float(weights[classes].mean()) == pytest.approx(1, rel=1e-5)
    assert weights[5] == 1, "a class without images has a weight that can be used"


def test_multilabel_weights_balance_each_label_like_scikit_learn() -> None:
    targets = np.random.default_rng(0).random((200, 3)) < [0.05, 0.5, 0.9]
    found = class_weights(torch.from_numpy(targets.astype(np.float32)), "multilabel", 3)
    for label in range(3):
        negative, positive = compute_class_weight("balanced", classes=np.array([False, True]), y=targets[:, label])
        assert float(found[label]) == pytest.approx(positive / negative, rel=1e-5)


def test_label_that_all_or_no_images_have_keeps_weight_1() -> None:
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert class_weights(targets, "multilabel", 2).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("loss", "task"), [(CrossEntropy(), "multilabel"), (Focal(), "multilabel")])
def test_loss_of_one_label_is_refused_for_several(loss: torch.nn.Module, task: str) -> None:
    with pytest.raises(ConfigError, match="loss=bce"):
        check_task(loss, task)


def test_loss_of_several_labels_is_refused_for_one() -> None:
    with pytest.raises(ConfigError, match="loss=cross_entropy"):
        check_task(BinaryCrossEntropy(), "multiclass")


@pytest.mark.parametrize(
    ("loss", "task"),
    [(Focal(), "multiclass"), (BinaryCrossEntropy(), "multilabel"), (torch.nn.MSELoss(), "multilabel")],
)
def test_fitting_and_foreign_losses_pass(loss: torch.nn.Module, task: str) -> None:
    check_task(loss, task)


def test_wrong_number_of_class_weights_is_an_error_that_says_how_many(logits: torch.Tensor, hard: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="3 numbers for 4 classes"):
        CrossEntropy(class_weights=[1.0, 2.0, 3.0])(logits, hard)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CrossEntropy(label_smoothing=1.0),
        lambda: BinaryCrossEntropy(label_smoothing=-0.1),
        lambda: Focal(gamma=-1.0),
        lambda: CrossEntropy(class_weights=[1.0, -1.0]),
        lambda: CrossEntropy(class_weights=[1.0, float("nan")]),
    ],
)
def test_settings_out_of_range_are_errors(make: object) -> None:
    with pytest.raises(ConfigError, match=r"loss\."):
        make()


def test_losses_are_built_by_hydra_from_lists_and_tensors(logits: torch.Tensor, hard: torch.Tensor) -> None:
    config = {"_target_": "finetune.training.losses.CrossEntropy", "label_smoothing": 0.1}
    listed = instantiate({**config, "class_weights": WEIGHTS.tolist()})
    given_tensor = instantiate(config, class_weights=WEIGHTS)
    assert listed(logits, hard) == given_tensor(logits, hard)


def test_class_weights_are_no_part_of_the_state() -> None:
    assert CrossEntropy(class_weights=WEIGHTS).state_dict() == {}


def test_convexity_is_known_of_our_own_losses_alone() -> None:
    losses = (CrossEntropy(0.1), BinaryCrossEntropy(), Focal(), nn.MSELoss())
    assert [is_convex(loss) for loss in losses] == [True, True, False, False]


@pytest.mark.parametrize("q", [0.3, 1.0])
def test_generalised_cross_entropy_is_its_formula(logits: torch.Tensor, hard: torch.Tensor, q: float) -> None:
    own = logits.softmax(1).gather(1, hard[:, None]).squeeze(1)
    losses = (1 - own**q) / q
    torch.testing.assert_close(GeneralisedCrossEntropy(q)(logits, hard), losses.mean())
    weighted = GeneralisedCrossEntropy(q, WEIGHTS)(logits, hard)
    torch.testing.assert_close(weighted, (losses * WEIGHTS[hard]).mean())


def test_generalised_cross_entropy_lies_between_cross_entropy_and_absolute_error(
    logits: torch.Tensor, hard: torch.Tensor
) -> None:
    near = GeneralisedCrossEntropy(1e-4)(logits, hard)
    torch.testing.assert_close(near, functional.cross_entropy(logits, hard), rtol=1e-2, atol=1e-3)
    absolute = (logits.softmax(1) - functional.one_hot(hard, 4)).abs().sum(1).mean() / 2
    torch.testing.assert_close(GeneralisedCrossEntropy(1.0)(logits, hard), absolute)
    assert not is_convex(GeneralisedCrossEntropy())


def test_generalised_cross_entropy_has_a_slope_where_a_probability_is_zero() -> None:
    logits = torch.tensor([[300.0, 0.0]], requires_grad=True)
    GeneralisedCrossEntropy(0.5)(logits, torch.tensor([1])).backward()
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"loss\.q=0"):
        GeneralisedCrossEntropy(0.0)
