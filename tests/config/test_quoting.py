"""Any text is quoted so that Hydra reads it as it is."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from finetune.config.quoting import quote_value, unquote_value

# Hydra has no way to write a newline, and no path has a null
TEXTS = st.text(st.characters(blacklist_characters="\n\r\0", blacklist_categories=("Cs",)), min_size=1)


def read(text: str) -> object:
    return OverridesParser.create().parse_override(f"key={text}").value()


@given(TEXTS | st.text("a'\\\" =,[]{}()", min_size=1))
def test_quoted_text_is_read_as_it_is(text: str) -> None:
    assert read(quote_value(text)) == text
    assert unquote_value(quote_value(text)) == text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("last", "last"), ("it's", "it's"), ("'a b'", "a b"), ('"it\'s"', "it's"), ("''", ""), ("'", "'"), ("007", "007")],
)
def test_what_was_typed_is_unquoted(typed: str, meant: str) -> None:
    assert unquote_value(typed) == meant
