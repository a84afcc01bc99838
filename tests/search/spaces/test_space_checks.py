"""Checks before the first trial: few configurations in which every choice of every setting occurs."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import ConfigError
from finetune.search.spaces.grammar import build_space
from finetune.search.spaces.space import SearchSpace
from finetune.search.spaces.space_checks import check_space, covering


def space(*typed: str, when: dict[str, dict[str, list[str]]] | None = None) -> SearchSpace:
    """Return a space."""
    return build_space({}, when or {}, typed, options=lambda _: [], base=lambda _: None)


@given(st.lists(st.integers(2, 5), min_size=1, max_size=5), st.data())
def test_every_choice_occurs_in_few_trials_that_keep_the_conditions(sizes: list[int], data: st.DataObject) -> None:
    typed = [f"k{number}={','.join(f'v{value}' for value in range(size))}" for number, size in enumerate(sizes)]
    when = {
        f"k{number}": {f"k{number - 1}": [f"v{data.draw(st.integers(0, sizes[number - 1] - 1))}"]}
        for number in range(1, len(sizes))
        if data.draw(st.booleans())
    }
    found = space(*typed, when=when)
    trials = list(covering(found, lambda _: True))
    seen = {(key, value) for values in trials for key, value in values.items()}
    assert seen == {(each.key, choice.value) for each in found.dimensions for choice in each.choices}
    assert len(trials) <= sum(sizes)
    for values in trials:
        for each in found.dimensions:
            before = {key: value for key, value in values.items() if key != each.key}
            assert (each.key in values) == found.active(each, before)


def test_numbers_are_checked_at_both_ends_and_plain_choices_once_for_each_type() -> None:
    found = space("a=interval(0,1)", "b=range(2,9)", "c=1,2,3,null,x,y")
    trials = list(covering(found, lambda _: False))
    assert {values["a"] for values in trials} == {0.0, 1.0}
    assert {values["b"] for values in trials} == {2, 8}
    assert {type(values["c"]) for values in trials} == {int, type(None), str}
    assert len(trials) == 3


def test_a_condition_that_never_holds_is_an_error() -> None:
    with pytest.raises(ConfigError, match="never tried, since s=c never holds"):
        list(covering(space("s=a,b", "k=1,2", when={"k": {"s": ["c"]}}), lambda _: True))


def test_the_trial_that_fails_is_named() -> None:
    def compose(overrides: Sequence[str]) -> None:
        if "k=2" in overrides:
            raise ConfigError("There is no setting 'k'.")

    with pytest.raises(ConfigError, match=r"The trial s=b k=2 fails: There is no setting 'k'\. .*when:"):
        check_space(space("s=a,b", "k=1,2"), compose, lambda _: True)
