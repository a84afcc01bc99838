"""Ctrl-C and SIGTERM as something a loop asks for, so that neither cuts a write to the study in two.

It decides what is noted of the signals and the exit code that follows; what is done about them is left to the loops.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """How often this process was asked to end.

    Attributes:
        times: None yet, once, or more often.
        code: The exit code of the first signal.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.times = 0
        self.code = 0

    def note(self, signum: int, frame: FrameType | None) -> None:
        """Count a signal."""
        self.code = self.code or 128 + signum
        self.times += 1


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Count signals while a block runs, then leave them to whom they were left before."""
    found = Interruption()
    before = {signum: signal.signal(signum, found.note) for signum in SIGNALS}
    try:
        yield found
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
