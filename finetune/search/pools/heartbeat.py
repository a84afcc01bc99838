"""Heartbeat: whether the pool that sent a job to another machine is still there, told by a file that both see.

No clock is compared with another machine's: a counter that stands still tells as much.
"""

import time
import uuid
from pathlib import Path

from finetune.runs.run import write_atomic

BEAT = 10.0  # seconds between two signs of life
SILENCE = 300.0  # seconds without one after which nobody waits for a job any more


class Owner:
    """The pool's side: a name that is its own, and signs of life.

    Attributes:
        file: Where both are; a pool that comes later in the same folder takes it over.
        name: Of this pool.
    """

    def __init__(self, file: Path) -> None:
        """Take the file over; the jobs of whoever had it before end."""
        self.file = file
        self.name = uuid.uuid4().hex
        self._beats = 0
        self._next = 0.0
        self.beat()

    def beat(self) -> None:
        """Give a sign of life if it is time; call it often."""
        if time.monotonic() >= self._next:
            self._beats += 1
            self._next = time.monotonic() + BEAT
            write_atomic(self.file, f"{self.name} {self._beats}")


class OwnerWatch:
    """The job's side."""

    def __init__(self, file: Path, name: str, silence: float = SILENCE) -> None:
        """Watch the file of an owner.

        Args:
            file: The owner's.
            name: The owner's.
            silence: Seconds without a sign of life after which the owner counts as gone.
        """
        self.file = file
        self.name = name
        self.silence = silence
        self._seen = ""
        self._heard = time.monotonic()

    def is_gone(self) -> bool:
        """Return whether another pool has taken over, or none has given a sign of life for too long."""
        try:
            seen = self.file.read_text(encoding="utf-8")
        except OSError:
            seen = self._seen
        if seen and seen.split()[0] != self.name:
            return True
        if seen != self._seen:
            self._seen, self._heard = seen, time.monotonic()
        return time.monotonic() - self._heard > self.silence
