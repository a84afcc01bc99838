"""Logs of commands: of one that runs many configurations, on the screen as it is, and the file that a run logs to."""

import logging
import sys
from pathlib import Path

from finetune.runtime.control_characters import EscapingFormatter

# goes to the log alone, where the screen shows the same in another form
record = logging.getLogger("finetune.record")


def keep_log(file: Path) -> None:
    """Show messages as they are, and keep them in a file with their time."""
    screen, kept = logging.StreamHandler(sys.stderr), logging.FileHandler(file, encoding="utf-8")
    screen.setFormatter(EscapingFormatter("%(message)s"))
    kept.setFormatter(EscapingFormatter("[%(asctime)s][%(levelname)s][%(name)s] %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[screen, kept], force=True)
    record.propagate = False
    record.handlers = [kept]


def log_file() -> Path | None:
    """Return the file that the run's log goes to."""
    files = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
    return Path(files[0].baseFilename) if files else None


def log_to_file(message: str, error: BaseException | None = None) -> None:
    """Write an error to the run's log alone."""
    cause = (type(error), error, error.__traceback__) if error else None
    entry = record.makeRecord("finetune.cli", logging.ERROR, __file__, 0, message, (), cause)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(entry)
