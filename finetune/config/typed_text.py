"""Text on the command line: paths and names are what was typed, whatever characters they have.

Hydra's grammar takes `2024` and `true` for numbers and switches, and does not know `é`, `(`, `#` or `'` without
quotes. Values of settings that are text are therefore put into quotes where they mean nothing else.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from finetune.config.quoting import quote_value
from finetune.config.settings.checked import Checked, hints, without_none
from finetune.config.settings.root_table import ROOTS
from finetune.config.settings.targets import TARGET_SETTINGS
from finetune.errors import ConfigError

LEFT = ("", "null", "???")


@lru_cache(maxsize=1)
def text_keys() -> frozenset[str]:
    """Return the settings that are text, or lists of it."""
    return frozenset(key for cls in (*ROOTS.values(), *TARGET_SETTINGS.values()) for key in _keys_of(cls))


def _keys_of(cls: type[Checked]) -> Iterator[str]:
    for name, hint in hints(cls).items():
        kind = without_none(hint)
        if kind is str or (get_origin(kind) is tuple and get_args(kind)[0] is str):
            yield f"{cls.place}{name}"
        elif isinstance(kind, type) and issubclass(kind, Checked):
            yield from _keys_of(kind)


def quote_text(arguments: Sequence[str], *, several: bool) -> list[str]:
    """Return a command line on which text is in quotes where Hydra would take it for something else.

    Args:
        arguments: The command line.
        several: Whether commas may part several values, as in a multirun or a sweep.

    Raises:
        ConfigError: A value is neither plain text nor what Hydra's grammar knows.
    """
    return [_quoted_argument(argument, several=several) for argument in arguments]


def _quoted_argument(argument: str, *, several: bool) -> str:
    name, equals, value = argument.partition("=")
    key = name.lstrip("+")
    if not equals or key not in text_keys() or value in LEFT or "${" in value:
        return argument
    try:
        parsed = OverridesParser.create().parse_override(argument)
    except HydraException as error:
        return f"{name}={_quoted_value(argument, value, several=several, cause=error)}"
    return argument if _is_text(parsed, several=several) else f"{name}={quote_value(value)}"


def _is_text(parsed: Override, *, several: bool) -> bool:
    """Return whether a value means to Hydra what was typed."""
    if parsed.is_sweep_override():
        return several
    value: Any = parsed._value
    return isinstance(value, str | QuotedString | list | dict) or value is None


def _quoted_value(argument: str, value: str, *, several: bool, cause: Exception) -> str:
    if value[0] == "[" and value[-1] == "]":
        return f"[{','.join(quote_value(entry.strip()) for entry in value[1:-1].split(','))}]"
    if several and "," in value:
        key = argument.partition("=")[0]
        raise ConfigError(
            f'{argument} cannot be read. Put each value into quotes: "{key}='
            f'{",".join(quote_value(entry) for entry in value.split(","))}"'
        ) from cause
    return quote_value(value)
