"""The paired test, its correction and its power against statsmodels, and the gate's two rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as reference
from statsmodels.stats.multitest import multipletests

from finetune.errors import ConfigError
from finetune.evaluation.compare.gate import check_gate, read_gate
from finetune.evaluation.compare.paired import Difference
from finetune.evaluation.compare.significance import detectable_difference, mcnemar
from finetune.evaluation.multiple_testing import holm


def rights(both: int, lost: int, won: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.repeat([True, True, False, False], [both, lost, won, neither])
    return first, np.repeat([True, False, True, False], [both, lost, won, neither])


@pytest.mark.parametrize("counts", [(50, 3, 12, 5), (0, 1, 0, 0), (10, 7, 7, 2), (90, 0, 9, 0), (3, 40, 20, 3)])
def test_mcnemar_is_that_of_statsmodels(counts: tuple[int, int, int, int]) -> None:
    both, lost, won, neither = counts
    found = mcnemar(*rights(*counts))
    expected = reference([[both, lost], [won, neither]], exact=True).pvalue
    assert found.p == pytest.approx(min(1.0, expected))
    assert (found.both, found.lost, found.won, found.neither) == counts


def test_without_a_difference_nothing_is_shown() -> None:
    assert mcnemar(*rights(9, 0, 0, 4)).p == 1.0


@settings(max_examples=20, deadline=None)  # the reference takes long
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(values: list[float]) -> None:
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1].tolist())


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    generator = np.random.default_rng(0)
    number, share = 1000, 0.1
    first = np.ones(number, bool)
    least = detectable_difference(first, generator.random(number) > share)
    won = share / 2 + least / 2
    found = 0
    for _ in range(300):
        draw = generator.random(number)
        one, two = draw >= won, (draw < won) | (draw >= share)
        found += mcnemar(one, two).p < 0.05
    assert 0.7 < found / 300 < 0.9


@pytest.mark.parametrize(
    ("change", "rule", "passed"),
    [
        (Difference(0.9, 0.89, -0.03, 0.01), "worse", True),
        (Difference(0.9, 0.89, -0.03, 0.01), "proven", False),
        (Difference(0.9, 0.85, -0.08, -0.02), "worse", False),
        (Difference(0.9, 0.9, -0.004, 0.004), "proven", True),
    ],
)
def test_the_gate_fails_beyond_noise_or_passes_beyond_it(change: Difference, rule: str, passed: bool) -> None:
    (condition,) = read_gate("accuracy>=-0.005", rule)
    found = check_gate(condition, {"accuracy": change}, rule)
    assert found.passed == passed
    assert f"{change.value:+.4f}" in found.reason


def test_a_loss_is_bounded_from_above() -> None:
    first, second = read_gate(" loss<=0.02 , f1_macro>=-1e-2", "worse")
    assert (first.metric, first.bound, second.bound) == ("loss", 0.02, -0.01)
    assert not check_gate(first, {"loss": Difference(0.2, 0.3, 0.05, 0.15)}, "worse").passed
    assert check_gate(first, {"loss": Difference(0.2, 0.3, 0.01, 0.15)}, "worse").passed


@pytest.mark.parametrize(
    ("text", "rule", "expected"),
    [
        ("accuracy>-0.1", "worse", "is no condition"),
        ("accuracy<=0.1", "worse", "higher accuracy is better"),
        ("loss>=0.1", "worse", "lower loss is better"),
        ("accuracy>=-0.1", "wors", "'worse'"),
    ],
)
def test_a_gate_that_cannot_be_meant_is_refused(text: str, rule: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        read_gate(text, rule)


def test_a_metric_that_is_not_there_is_named_with_the_nearest() -> None:
    (condition,) = read_gate("acuracy>=0", "worse")
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        check_gate(condition, {"accuracy": Difference(0, 0, 0, 0)}, "worse")
