"""Sets cover as often as promised, decided images are as often right, and what cannot be promised is refused."""

import numpy as np
import pytest
from scipy.stats import binom

from finetune.errors import ConfigError
from finetune.uncertainty.conformal import conformity_scores, fit_conformal
from finetune.uncertainty.selective import accuracy_threshold, lower_bound, risk_coverage

TARGET = 0.65


def drawn(number: int, seed: int, labels: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of an over-confident network, and labels."""
    generator = np.random.default_rng(seed)
    true = generator.normal(scale=1.5, size=(number, labels))
    chances = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    targets = np.array([generator.choice(labels, p=row) for row in chances])
    sure = np.exp(2 * true) / np.exp(2 * true).sum(axis=1, keepdims=True)
    return sure, targets


@pytest.mark.parametrize("score", ["lac", "aps"])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_cover_as_promised_within_the_binomial_interval(score: str, coverage: float) -> None:
    hits = total = 0
    for seed in range(40):
        probabilities, targets = drawn(600, seed)
        found = fit_conformal(probabilities[:300], targets[:300], coverage, score)  # type: ignore[arg-type]
        hits += int(found.sets(probabilities[300:])[np.arange(300), targets[300:]].sum())
        total += 300
    # the bar of 300 images varies too: by a beta distribution, whose spread is added to that of the test images
    spread = np.sqrt(coverage * (1 - coverage) * (1 / total + 1 / (40 * 301)))
    assert hits / total >= coverage - 3 * spread
    if score == "lac":
        assert hits / total <= coverage + 3 * spread + 1 / 301


def test_sums_are_those_down_to_each_label() -> None:
    assert conformity_scores(np.array([[0.2, 0.5, 0.3]]), "aps")[0] == pytest.approx([1.0, 0.5, 0.8])
    assert conformity_scores(np.array([[0.2, 0.5, 0.3]]), "lac")[0] == pytest.approx([0.8, 0.5, 0.7])


def test_too_few_images_for_a_coverage_are_refused_with_what_would_do() -> None:
    probabilities, targets = drawn(37, 0)
    with pytest.raises(ConfigError, match=r"coverage=0.99 needs 99 validation images or more, and there are 37.*0.97"):
        fit_conformal(probabilities, targets, 0.99)
    assert fit_conformal(probabilities, targets, 0.97).bar <= 1
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        fit_conformal(probabilities, targets, 1.0)


def test_risk_rises_with_coverage_as_counted() -> None:
    found = risk_coverage(np.array([0.9, 0.8, 0.8, 0.6]), np.array([True, False, True, False]))
    assert found.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert found.risk == pytest.approx([0, 1 / 3, 1 / 3, 0.5])
    assert found.area == pytest.approx(np.mean(found.risk))


def test_a_threshold_keeps_its_promise_on_new_images() -> None:
    kept = covered = 0
    for seed in range(60):
        probabilities, targets = drawn(1000, seed)
        confidence, right = probabilities.max(1), probabilities.argmax(1) == targets
        found = accuracy_threshold(confidence[:500], right[:500], TARGET)
        decided = confidence[500:] >= found.value
        covered += bool(decided.any())
        kept += bool(
            not decided.any()
            or right[500:][decided].mean() >= TARGET - 1.645 * np.sqrt(TARGET * (1 - TARGET) / decided.sum())
        )
    assert covered > 40, "the promise is not kept by deciding nothing"
    assert kept >= binom.ppf(0.01, 60, 0.95)


def test_a_promise_that_cannot_be_kept_decides_nothing() -> None:
    found = accuracy_threshold(np.linspace(0.5, 1, 30), np.ones(30, bool), 0.99)
    assert found.coverage == 0
    assert found.value > 1
    with pytest.raises(ConfigError, match="below 1"):
        accuracy_threshold(np.ones(3), np.ones(3, bool), 1.0)


def test_the_bound_is_that_of_the_binomial_distribution() -> None:
    low = lower_bound(45, 50, 0.05)
    assert binom.sf(44, 50, low) == pytest.approx(0.05)
    assert lower_bound(0, 9, 0.05) == 0
