"""How far a run has come: its epoch and its scores, read from the history in its folder while it trains."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune.config.settings.phases import Strategy
from finetune.config.settings.training_groups import HeadSettings
from finetune.runs.history import RunHistory
from finetune.runs.run import Run


@dataclass(frozen=True)
class JobProgress:
    """How far a run has come.

    Attributes:
        epochs: How many epochs have been scored, over all phases.
        value: The monitored value of the last of them; None before the first.
        best: The best of them.
    """

    epochs: int = 0
    value: float | None = None
    best: float | None = None


class ProgressReader:
    """Reads the history of a run again and again, but only when it has grown."""

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        """Read below a run's folder, which need not be there yet.

        Args:
            folder: The run's.
            monitor: The value that decides which epoch is best.
            mode: Whether it is the max or the min.
        """
        self.file = Run(folder).history_file
        self.monitor = monitor
        self.better: Callable[..., float] = max if mode == "max" else min
        self._seen: tuple[int, int] | None = None
        self._progress = JobProgress()

    def read(self) -> JobProgress:
        """Return how far the run has come."""
        try:
            status = self.file.stat()
        except OSError:
            return self._progress
        seen = (status.st_size, status.st_mtime_ns)
        if seen != self._seen:
            self._seen = seen
            self._progress = self._read()
        return self._progress

    def _read(self) -> JobProgress:
        scored = ((row, row.get(self.monitor)) for row in RunHistory(self.file).read())
        rows = [(row, float(value)) for row, value in scored if isinstance(value, int | float) and math.isfinite(value)]
        if not rows:
            return self._progress
        values = [value for _, value in rows]
        return JobProgress(int(rows[-1][0]["epoch"]) + 1, values[-1], self.better(values))


def total_epochs(strategy: Strategy, head: HeadSettings) -> int:
    """Return how many epochs a run takes at most; a head that is solved takes one."""
    given = head.l1 is not None or head.l2 is not None
    solved = head.solver != "optimizer" and (head.solver is not None or given)
    return sum(1 if solved and phase.backbone_frozen else phase.epochs for phase in strategy.phases)
