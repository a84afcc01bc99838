"""Filters: each operator says what it says, what cannot be read is named, and nothing typed is run."""

import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config.conditions import ValueCondition, read_conditions
from finetune.errors import ConfigError

SIGNS: dict[str, Any] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def test_conditions_are_joined_by_and_or_commas() -> None:
    asked = "strategy=lora and test/accuracy>0.9,optimizer.lr<=1e-3 AND name~'ants and bees'"
    assert read_conditions(asked) == [
        ValueCondition("strategy", "=", "lora"),
        ValueCondition("test/accuracy", ">", "0.9"),
        ValueCondition("optimizer.lr", "<=", "1e-3"),
        ValueCondition("name", "~", "ants and bees"),
    ]


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(sorted(SIGNS)))
def test_numbers_compare_as_numbers(left: float, right: float, sign: str) -> None:
    (condition,) = read_conditions(f"test/loss{sign}{right!r}")
    assert condition.holds(left) == SIGNS[sign](left, right)


@pytest.mark.parametrize(
    ("asked", "value", "holds"),
    [
        ("lr=1e-3", 0.001, True),
        ("lr=1e-3", "0.001", True),  # YAML reads some numbers as words
        ("name~LORA", "mobile-lora", True),
        ("name~full", "mobile-lora", False),
        ("strategy!=lora", "full", True),
        ("data.exact=true", True, True),
        ("data.exact=1", True, False),
        ("when>=2026-11-25", "2026-11-25 06:46", True),
        ("when<2026-11-25", "2026-11-25 06:46", False),
        ("seed=null", None, True),
        ("seed=null", 0, False),
        ("seed!=null", 0, True),
        ("strategy='null value'", "null value", True),
    ],
)
def test_words_and_what_is_not_there(asked: str, value: Any, holds: bool) -> None:
    (condition,) = read_conditions(asked)
    assert condition.holds(value) is holds


@pytest.mark.parametrize("sign", [*SIGNS, "~"])
def test_a_missing_value_fulfils_no_comparison(sign: str) -> None:
    assert not read_conditions(f"test/accuracy{sign}0.5")[0].holds(None)


def test_a_number_is_not_above_a_word() -> None:
    with pytest.raises(ConfigError, match=r"test/accuracy is a number \(0.9\).*test/accuracy>0.9"):
        read_conditions("test/accuracy>high")[0].holds(0.9)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("strategy=lora or seed=1", "at 'or seed=1'.*joined by 'or' are several commands"),
        ("strategy", "at 'strategy'"),
        ("a=1 b=2", "at 'b=2'"),
        ("a=1 and", "at 'and'"),
        ("a==1", "'==' compares nothing.*Type KEY=VALUE"),
        ("a=<1", "Did you mean '<='"),
        ("a>null", "a>null asks nothing"),
        ("  ", "cannot be read"),
        ("__import__('os').system('true')", "cannot be read at"),
    ],
)
def test_what_cannot_be_read_is_named(asked: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_conditions(asked)
