"""Scaling finds a known temperature, is never worse where it was fitted, and stays away from few or perfect images."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from finetune.errors import ConfigError
from finetune.evaluation.predictions import to_probabilities
from finetune.uncertainty.scaling import METHODS, Scaling, check_calibration_method, fit_scaling, losses_of


def drawn(number: int, temperature: float, labels: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are too large by a factor, and labels that follow the true probabilities."""
    generator = np.random.default_rng(seed)
    true = generator.normal(scale=2, size=(number, labels))
    chances = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    targets = np.array([generator.choice(labels, p=row) for row in chances])
    return (true * temperature).astype(np.float32), targets


@pytest.mark.parametrize("temperature", [0.5, 1.8, 3.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    logits, targets = drawn(4000, temperature)
    found = fit_scaling(logits, targets, "temperature", multilabel=False)
    assert found.scaling.temperature == pytest.approx(temperature, rel=0.06)
    assert found.after < found.before
    reference = minimize_scalar(
        lambda t: losses_of(logits / t, targets, multilabel=False).mean(), bounds=(0.1, 9), method="bounded"
    )
    assert found.scaling.temperature == pytest.approx(reference.x, rel=0.01)


def test_temperature_changes_no_decision_and_is_never_worse_where_it_was_fitted() -> None:
    logits, targets = drawn(300, 2.5)
    scaled = fit_scaling(logits, targets, "temperature", multilabel=False).scaling.apply(logits, multilabel=False)
    assert (scaled.argmax(1) == logits.argmax(1)).all()
    before, after = (losses_of(each, targets, multilabel=False).mean() for each in (logits, scaled))
    assert after <= before


def test_losses_are_those_of_scikit_learn() -> None:
    logits, targets = drawn(50, 1.0)
    chances = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
    assert losses_of(logits, targets, multilabel=False).mean() == pytest.approx(log_loss(targets, chances))


def test_perfect_images_do_not_make_a_network_infinitely_sure() -> None:
    targets = np.arange(37) % 3
    logits = 2.0 * np.eye(3, dtype=np.float32)[targets]
    for method in METHODS[1:]:
        found = fit_scaling(logits, targets, method, multilabel=False)
        assert found.scaling == Scaling()
        assert "all validation images are right" in found.note
    several = fit_scaling(4 * np.eye(3)[targets] - 2, np.eye(3)[targets], "temperature", multilabel=True)
    assert several.scaling == Scaling()
    targets[0] = 1  # a single error says something
    found = fit_scaling(logits, targets, "temperature", multilabel=False)
    assert found.note == ""
    assert 0.3 < 1 / found.scaling.scale[0] < 1


def test_one_scale_moves_no_answer_in_several_views() -> None:
    logits = np.random.default_rng(0).normal(scale=2, size=(4, 2000, 5)).astype(np.float32)
    for task, multilabel in (("multiclass", False), ("multilabel", True)):
        plain = to_probabilities(logits, task)
        answers = (plain > 0.5) if multilabel else plain.argmax(1)
        for scale in (0.4, 3.0):
            scaled = to_probabilities(Scaling("temperature", (scale,)).apply(logits, multilabel=multilabel), task)
            assert (((scaled > 0.5) if multilabel else scaled.argmax(1)) == answers).all()
        same = Scaling("temperature", (1.0,)).apply(logits, multilabel=multilabel)
        np.testing.assert_allclose(to_probabilities(same, task), plain, atol=1e-6)


def test_what_all_logits_of_an_image_have_in_common_means_nothing() -> None:
    logits, targets = drawn(400, 3.0)
    common = np.random.default_rng(5).normal(scale=20, size=(400, 1))
    plain, moved = (fit_scaling(logits + add, targets, "vector", multilabel=False).scaling for add in (0, common))
    assert plain.scale == pytest.approx(moved.scale, abs=1e-2)
    np.testing.assert_allclose(
        to_probabilities(plain.apply(logits, multilabel=False), "multiclass"),
        to_probabilities(plain.apply(logits + common, multilabel=False), "multiclass"), atol=1e-4,
    )  # fmt: skip


def test_good_probabilities_are_left_alone_and_so_are_few_images() -> None:
    logits, targets = drawn(60, 1.0, seed=3)
    found = fit_scaling(logits, targets, "vector", multilabel=False)
    assert found.scaling == Scaling()
    assert "did not fit held-out" in found.note
    few = fit_scaling(logits[:4], targets[:4], "temperature", multilabel=False)
    assert (few.scaling, few.note) == (Scaling(), "4 validation images are too few to calibrate on.")


def test_vector_scaling_finds_a_shift_that_temperature_cannot() -> None:
    logits, targets = drawn(3000, 1.0)
    moved = logits + np.array([2, 0, 0, -2], np.float32)
    vector = fit_scaling(moved, targets, "vector", multilabel=False)
    single = fit_scaling(moved, targets, "temperature", multilabel=False)
    assert vector.after < single.after
    shift = np.array(vector.scaling.shift)
    assert (shift - shift.mean())[[0, 3]] == pytest.approx([-2, 2], abs=0.25)


def test_several_labels_and_several_views_are_scaled_together() -> None:
    generator = np.random.default_rng(0)
    true = generator.normal(scale=2, size=(2000, 3))
    targets = (generator.random((2000, 3)) < 1 / (1 + np.exp(-true))).astype(np.int64)
    found = fit_scaling((3 * true).astype(np.float32), targets, "temperature", multilabel=True)
    assert found.scaling.temperature == pytest.approx(3, rel=0.06)
    logits, labels = drawn(1500, 2.0)
    twice = fit_scaling(np.stack([logits, logits]), labels, "temperature", multilabel=False)
    once = fit_scaling(logits, labels, "temperature", multilabel=False)
    assert twice.scaling.scale == pytest.approx(once.scaling.scale, rel=1e-3)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ConfigError, match="'temperature'"):
        check_calibration_method("temprature")
