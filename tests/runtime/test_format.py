"""How numbers are written for people."""

import math

import pytest

from finetune.runtime.format import (
    DASH,
    format_change,
    format_count,
    format_duration,
    format_interval,
    format_magnitude,
    format_p,
    format_score,
    format_share,
    format_size,
    format_with_interval,
    listed,
)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (12_810, "12.8 k"), (3_384_234, "3.38 M"), (86e6, "86 M"), (1.1e9, "1.1 G")],
)
def test_counts_are_short(number: float, text: str) -> None:
    assert format_magnitude(int(number)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (59.4, "59.4 s"), (60.0, "1 min 00 s"), (151.4, "2 min 31 s"), (7260, "2 h 01 min")],
)
def test_durations_are_in_words(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("seconds", "words"), [(4.4, "4 s"), (65, "1 min 05 s"), (3600 * 2 + 125, "2 h 02 min")])
def test_durations_that_are_shown_anew_each_second_have_whole_ones(seconds: float, words: str) -> None:
    assert format_duration(seconds, digits=0) == words


def test_sizes_are_shown_in_their_unit() -> None:
    assert [format_size(size) for size in (1_500, 2_500_000, 3 * 10**10)] == ["2 kB", "2.5 MB", "30.0 GB"]


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_not_defined_is_a_dash(value: float | None) -> None:
    assert format_score(value) == format_change(value) == format_with_interval(value, None, 1.0) == DASH
    assert format_interval(value, 1.0) is format_interval(0.0, value) is None


def test_scores_have_their_intervals() -> None:
    assert format_with_interval(0.91, 0.88, 0.94) == "0.910 (0.880 to 0.940)"
    assert format_share(0.91, 0.88, 0.94) == "91.0% (88.0% to 94.0%)"


def test_a_change_that_rounds_to_none_is_not_below_it() -> None:
    assert [format_change(change) for change in (-1e-9, -0.01, 0.01)] == ["+0.0000", "-0.0100", "+0.0100"]


def test_p_values_have_two_digits_and_end_where_the_test_does() -> None:
    assert [format_p(p) for p in (1.0, 0.5, 0.0413, 1e-9)] == ["1", "0.5", "0.041", "<0.0001"]
    assert format_p(1e-4, least=1e-3) == "<0.001"


def test_things_are_counted_and_listed() -> None:
    assert [format_count(number) for number in (1, 1200)] == ["1 image", "1,200 images"]
    assert format_count(2, "class", "classes") == "2 classes"
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
