"""Control characters in names of files and classes: shown, and never sent to a terminal, which would obey them."""

import logging
import re

# all but the tab and the end of a line; with those that turn the direction of writing, or end a line elsewhere
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def escape_controls(text: str) -> str:
    r"""Return a text whose control characters are written out, such as \x1b."""
    return _CONTROLS.sub(_written, text)


def _written(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class EscapingFormatter(logging.Formatter):
    """Formats messages without control characters; a name in them stays on its line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line of a message."""
        return escape_controls(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """Return a message with its traceback."""
        if isinstance(record.args, tuple):
            names = tuple(each.replace("\n", "\\n") if isinstance(each, str) else each for each in record.args)
            record = logging.makeLogRecord({**vars(record), "args": names})
        return escape_controls(super().format(record))


def escape_on_screen() -> None:
    """Let rich write control characters out, whatever it is given to print; it drops a few and passes on the others."""
    from rich import control

    codes = [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F)]
    table: dict[int, str | None] = control._CONTROL_STRIP_TRANSLATE  # type: ignore[assignment]
    table.update({code: escape_controls(chr(code)) for code in (*codes, *range(0x2066, 0x206A))})
