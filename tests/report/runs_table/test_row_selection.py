"""Choices: rows are kept and ordered by any value, what lacks it comes last, unknown names are answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import ConfigError
from finetune.report.runs_table.entries import EntryValue, RunEntry
from finetune.report.runs_table.row_selection import RowSelection, ordered, read_choice


def rows(*values: EntryValue) -> list[RunEntry]:
    return [RunEntry({"place": place, "test/accuracy": value}) for place, value in enumerate(values)]


def choice(**asked: object) -> RowSelection:
    options = {"conditions": None, "sort": None, "limit": None, **asked}
    return read_choice(options.pop("columns", None), ("place",), **options)  # type: ignore[arg-type]


@given(st.lists(st.one_of(st.none(), st.integers(-3, 3), st.floats(-3, 3), st.sampled_from(["a", "b"]))), st.booleans())
def test_order_is_that_of_the_values_and_what_lacks_one_comes_last(values: list[EntryValue], descending: bool) -> None:
    found = [entry.value("test/accuracy") for entry in ordered(rows(*values), "test/accuracy", descending=descending)]
    numbers = sorted((v for v in values if isinstance(v, int | float)), reverse=descending)
    words = sorted((v for v in values if isinstance(v, str)), reverse=descending)
    assert found == [*numbers, *words, *[None] * values.count(None)]


@pytest.mark.parametrize("sort", ["test/accuracy", "-test/accuracy"])
def test_equals_stay_in_their_order(sort: str) -> None:
    found = choice(sort=sort).apply(rows(0.5, None, 0.5, None))
    assert [entry.value("place") for entry in found] == [0, 2, 1, 3]


def test_limit_is_that_of_the_rows_that_are_kept() -> None:
    found = choice(conditions="test/accuracy>0.2", sort="-test/accuracy", limit=2).apply(rows(0.1, 0.3, 0.5, None, 0.4))
    assert [entry.value("test/accuracy") for entry in found] == [0.5, 0.4]


@pytest.mark.parametrize(
    "asked", [{"sort": "accuracy"}, {"columns": ["accuracy"]}, {"conditions": "accuracy>1"}, {"sort": "test/acuracy"}]
)
def test_unknown_name_is_answered_with_the_nearest(asked: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"Nothing here is called '.*acc?uracy'.* Did you mean 'test/accuracy'\?"):
        choice(**asked).apply(rows(0.5, None))


def test_name_without_any_value_is_known() -> None:
    assert len(choice(columns=["test/accuracy"]).apply(rows(None, None))) == 2


@pytest.mark.parametrize("columns", [[], 3, [1], {"a": 1}])
def test_columns_that_are_no_names_are_refused(columns: object) -> None:
    with pytest.raises(ConfigError, match="is no list of names"):
        choice(columns=columns)
