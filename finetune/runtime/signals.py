"""Signals that end a run: by which a terminal, a scheduler or a limit says that it is time."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

# they would end a process without a word; a run ends by them as by SIGTERM
ENDING = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


@contextmanager
def exit_on_signals(numbers: Sequence[signal.Signals] = ENDING) -> Iterator[None]:
    """Let SIGTERM, and other signals like it, raise SystemExit with 143 while a block runs.

    What is said again while the run ends changes nothing. A signal that is ignored, as SIGHUP is under nohup, or that
    has a handler stays as it is.
    """
    asked = False

    def terminate(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise SystemExit(128 + signum)

    def forward(signum: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)  # whose handler may be Lightning's by now, which ends other ranks too

    handlers = {number: forward for number in numbers if signal.getsignal(number) is signal.SIG_DFL}
    previous = {number: signal.signal(number, do) for number, do in {**handlers, signal.SIGTERM: terminate}.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Leave it to the process that this one works for to end by a signal that a whole group of processes gets."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
