"""Quoting: any text, such as a path with spaces or an apostrophe, as a value of Hydra's grammar, and back."""

import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

_QUOTES = ("'", '"')


def quote_value(value: object) -> str:
    """Return a text in quotes, which Hydra reads as it is; backslashes count where they stand before a quote alone."""
    escaped = re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + end[2].replace("'", r"\'"), str(value))
    return f"'{escaped}'"


def unquote_value(text: str) -> str:
    """Return the text that was typed with or without quotes of Hydra's grammar."""
    if len(text) < 2 or text[0] not in _QUOTES or text[-1] != text[0]:
        return text
    try:
        return str(OverridesParser.create().parse_override(f"value={text}").value())
    except HydraException:
        return text
