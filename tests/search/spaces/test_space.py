"""A search space: one meaning of Hydra's grammar in files and on the command line, and conditions that hold."""

from collections.abc import Mapping
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import ConfigError
from finetune.search.spaces.grammar import build_space
from finetune.search.spaces.space import SearchSpace, differences


def space(*typed: str, params: Mapping[str, Any] | None = None, when: Mapping[str, Any] | None = None) -> SearchSpace:
    """Return a space over groups that have the options a, b and lora."""
    return build_space(params or {}, when or {}, typed, options=lambda _: ["a", "b", "lora"], base={"mode": "max"}.get)


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("1,2", [1, 2]),
        ("range(1,4)", [1, 2, 3]),
        ("range(1,8,3)", [1, 4, 7]),
        ("range(0.1,0.45,0.1)", [0.1, 0.2, 0.30000000000000004, 0.4]),
        ("int(interval(1,3))", [1, 2, 3]),
        ("choice(x,y)", ["x", "y"]),
        ("choice(null,true,0.5)".replace("choice(null,", "null,").rstrip(")"), [None, True, 0.5]),
        ("glob(*)", ["a", "b", "lora"]),
        ("glob([a,l*])", ["a", "lora"]),
        ("glob(*,exclude=b)", ["a", "lora"]),
        ("choice([1,2],{k:1})", ["[1,2]", "{k:1}"]),
    ],
)
def test_an_expression_means_the_same_in_a_file_and_on_the_command_line(expression: str, values: list[Any]) -> None:
    typed, filed = space(f"x={expression}"), space(params={"x": expression})
    assert typed == filed
    assert [found["x"] for found in typed.grid()] == values


@given(st.integers(-20, 20), st.integers(1, 30), st.integers(1, 7))
def test_ranges_are_those_of_hydra_and_python(start: int, length: int, step: int) -> None:
    text = f"x=range({start},{start + length},{step})"
    (override,) = OverridesParser.create().parse_overrides([text])
    found = [values["x"] for values in space(text).grid()] if length > step else list(override.sweep_iterator())
    assert found == list(override.sweep_iterator()) == list(range(start, start + length, step))


def test_intervals_are_continuous_and_may_be_logarithmic() -> None:
    (plain,) = space("x=interval(1,10)").dimensions
    (log,) = space("x=tag(log,interval(1e-5,1e-2))").dimensions
    assert (plain.kind, plain.low, plain.high, plain.log) == ("decimal", 1.0, 10.0, False)
    assert (log.kind, log.low, log.high, log.log) == ("decimal", 1e-5, 1e-2, True)
    with pytest.raises(ConfigError, match="sweep=random"):
        space("x=interval(1,10)").grid()


def test_the_command_line_goes_before_the_file() -> None:
    params = {"x": "1,2", "y": "1,2", "z": 5}
    found = space("y=range(7,9)", "x=3", params=params)
    assert [str(each) for each in found.dimensions] == ["y=int(interval(7, 8))"]
    assert found.fixed == ("z=5",)
    assert space("z=6", params=params).fixed == ()


def test_values_are_typed_as_hydra_reads_them() -> None:
    found = space("+x=choice('a b','c,d')", "y=true,false", "z=range(0.1,0.4,0.1)")
    texts = found.overrides({"x": "c,d", "y": True, "z": 0.3})
    parsed = OverridesParser.create().parse_overrides(texts)
    assert [override.value() for override in parsed] == ["c,d", True, 0.30000000000000004]
    assert texts[0].startswith("+x=")


def test_settings_under_conditions_are_tried_only_where_these_hold() -> None:
    params = {"rank": "2,4", "strategy": "a,lora"}
    found = space(params=params, when={"rank": {"strategy": "lora"}})
    assert found.grid() == [{"strategy": "a"}, {"strategy": "lora", "rank": 2}, {"strategy": "lora", "rank": 4}]
    assert found.overrides({"strategy": "lora", "rank": 4}) == ["strategy=lora", "rank=4"]


def test_conditions_on_what_does_not_vary_decide_at_once() -> None:
    params = {"rank": "2,4"}
    assert space(params=params, when={"rank": {"mode": ["max", "min"]}}).grid() == [{"rank": 2}, {"rank": 4}]
    assert space(params=params, when={"rank": {"mode": "min"}}).dimensions == ()


def test_conditions_of_conditions_hold_in_a_chain() -> None:
    params = {"c": "1,2", "b": "x,y", "a": "p,q"}
    found = space(params=params, when={"c": {"b": "x"}, "b": {"a": "p"}})
    assert [each.key for each in found.dimensions] == ["a", "b", "c"]
    assert {"a": "q"} in found.grid() and len(found.grid()) == 4


@pytest.mark.parametrize(
    ("typed", "params", "when", "expected"),
    [
        (["x=tag(logg,interval(1,2))"], {}, {}, "tag"),
        (["x=interval(2,1)"], {}, {}, "larger"),
        (["x=tag(log,interval(0,1))"], {}, {}, "above 0"),
        (["x=tag(log,range(1,9,2))"], {}, {}, "steps of 1"),
        (["x=shuffle(1,2)"], {}, {}, "sweep=random"),
        (["x=range(4,1)"], {}, {}, "empty"),
        (["x=glob(z*)"], {}, {}, "no option"),
        (["x=1,1"], {}, {}, "twice"),
        (["x=1,true"], {}, {}, "twice"),
        (["x=interval("], {}, {}, "interval"),
        ([], {"x": [1, 2]}, {}, "expression"),
        ([], {"x": "1,2", "y": "1,2"}, {"y": "lora"}, "must name a setting"),
        ([], {"x": "interval(0,1)", "y": "1,2"}, {"y": {"x": 1}}, "only a choice"),
        ([], {"x": "1,2", "y": "1,2"}, {"y": {"x": 1}, "x": {"y": 1}}, "depend on each other"),
    ],
)
def test_what_cannot_be_searched_is_one_clear_line(
    typed: list[str], params: dict[str, Any], when: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected) as raised:
        space(*typed, params=params, when=when)
    assert "\n" not in str(raised.value)


def test_what_changed_between_two_spaces_is_told() -> None:
    before = space("x=1,2", "y=interval(0.0,1.0)", "w=1,2").describe()
    now = space("x=1,3", "z=range(1,3)", "w=1,2").describe()
    assert list(differences(before, now)) == [
        "x was choice(1, 2) and is choice(1, 3)",
        "y no longer varies (it was interval(0.0, 1.0))",
        "z is new (int(interval(1, 2)))",
    ]
    assert list(differences(before, before)) == []
