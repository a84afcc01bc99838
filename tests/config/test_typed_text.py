"""Paths and names are what was typed; values that need quotes get them, or it is shown how they are typed."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from finetune.config.quoting import quote_value
from finetune.config.typed_text import quote_text, text_keys
from finetune.errors import ConfigError

ODD = [
    "2024", "true", "1e3", "odd/é", "odd/日本語", "odd/a,b", "odd/(1)", "odd/a=b", "odd/#1", "odd/it's", "0x10",
    "null_",
    "a b", "{x}", "a]b", "ends\\", "quote\\'s", "%41", "a:b", "~/x", "@here", "!x", "&y", "1_000", "inf",
    "nan", "-3",
    "choice(a,b)", "tag(a)", 'say "so"', "$HOME", "*", "?", "<b>",
]  # fmt: skip


def value_of(argument: str) -> object:
    """Return what Hydra takes a value for."""
    return OverridesParser.create().parse_override(argument).value()


@pytest.mark.parametrize("key", ["data.root", "name", "run", "input", "model.weights", "+data.path"])
@pytest.mark.parametrize("text", ODD)
def test_text_stays_text(key: str, text: str) -> None:
    (argument,) = quote_text([f"{key}={text}"], several=False)
    assert value_of(argument) == text


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1))
def test_any_text_in_quotes_is_itself(text: str) -> None:
    assert value_of(f"name={quote_value(text)}") == text


@pytest.mark.parametrize(
    "argument",
    ["name='a b'", 'data.root="x,y"', "name=null", "name=", "name=${seed}", "name=plain", "optimizer.lr=1e-3",
     "seed=1,2", "augment.mixup=(", "~name", "--cfg", "job"],
)  # fmt: skip
def test_what_is_right_or_no_text_is_left_as_it_was(argument: str) -> None:
    assert quote_text([argument], several=False) == [argument]


def test_commas_part_values_where_several_are_meant() -> None:
    assert quote_text(["model.name=resnet18,resnet50"], several=True) == ["model.name=resnet18,resnet50"]
    assert quote_text(["model.name=choice(a,b)"], several=True) == ["model.name=choice(a,b)"]
    with pytest.raises(ConfigError, match=r"""Put each value into quotes: "data.root='é','b'\""""):
        quote_text(["data.root=é,b"], several=True)


def test_members_of_a_list_are_quoted_one_by_one() -> None:
    assert [value_of(each) for each in quote_text(["runs=[odd/é,b (1)]", "runs=[a,b]"], several=False)] == [
        ["odd/é", "b (1)"], ["a", "b"],
    ]  # fmt: skip


def test_the_text_keys_are_those_of_the_settings() -> None:
    assert {"data.root", "data.path", "name", "runs", "run", "input", "model.name", "data.label_column"} <= text_keys()
    assert not {"seed", "optimizer.lr", "imbalance", "mode", "strategy", "data.workers"} & text_keys()
