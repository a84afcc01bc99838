"""The log of a command that runs many configurations: on the screen as it is, in a file with times."""

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
