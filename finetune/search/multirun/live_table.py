"""What a person sees of many runs at once: a live table on a terminal, a line for each event elsewhere."""

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from finetune.runtime.format import format_duration, format_score
from finetune.search.multirun.job_progress import JobProgress, ProgressReader

RUNNING, DONE = "running", "done"
_WAITING = ":waiting"  # ends the slot of a job that a cluster has not started yet
_STYLES = {RUNNING: "cyan", DONE: "green", "pruned": "yellow", "cancelled": "yellow"}  # all others have failed
FRAME_LINES = 6  # of the table that are no jobs
REFRESH = 0.5  # seconds


@dataclass
class BoardLine:
    """A job as it is shown.

    Attributes:
        name: Its number.
        what: What is special about it.
        slot: Where it runs.
        epochs: How many epochs it takes at most; None if that is not known.
        reader: Reads how far it has come; None where there is no run.
        started: When, by the monotonic clock.
        state: running, done, or how else it ended.
        seconds: How long it took, or takes as yet.
        progress: How far it has come.
    """

    name: str
    what: str
    slot: str
    epochs: int | None
    reader: ProgressReader | None
    started: float
    state: str = RUNNING
    seconds: float = 0.0
    progress: JobProgress = field(default_factory=JobProgress)

    def look(self) -> None:
        """Bring the line up to date."""
        self.seconds = time.monotonic() - self.started
        if self.reader is not None:
            self.progress = self.reader.read()

    @property
    def left(self) -> float | None:
        """Seconds that it will go on, by its epochs so far; None if that is not known."""
        if self.state != RUNNING or not self.epochs or not self.progress.epochs:
            return None
        return self.seconds / self.progress.epochs * max(0, self.epochs - self.progress.epochs)


class LiveTable:
    """Shows the jobs of a command while it is entered; it draws in the thread of its caller alone."""

    def __init__(
        self, noun: str, monitor: str, mode: str, *, total: int | None, slots: int, console: Console | None = None
    ) -> None:
        """Make a board without jobs.

        Args:
            noun: What a job is called, such as job or trial.
            monitor: The value that is shown.
            mode: Whether the best is the max or the min of it.
            total: How many jobs there will be; None if that is not known.
            slots: How many run at a time.
            console: Where to draw; None is the standard output, where nothing moves unless it is a terminal.
        """
        self.noun = noun
        self.monitor = monitor
        self.mode = mode
        self.total = total
        self.slots = slots
        self.console = console or Console()
        # FORCE_COLOR makes rich take a file for a terminal: colours are welcome there, moving lines are not
        self.moving = self.console.is_interactive and (console is not None or sys.stdout.isatty())
        self.lines: dict[str, BoardLine] = {}
        self.remark = ""
        self._drawn = 0.0
        self._live: Live | None = None

    def __enter__(self) -> "LiveTable":
        """Begin to draw."""
        if self.moving:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the table of all jobs on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self.remark = ""
            self.console.print(self.table(list(self.lines.values())))

    def begin(self, key: str, what: str, slot: str, *, folder: Path | None = None, epochs: int | None = None) -> None:
        """Show a job that has been started.

        Args:
            key: The job's.
            what: What is special about it, such as its overrides.
            slot: Where it runs.
            folder: The folder of its run; None where it makes none.
            epochs: How many epochs it takes at most; None if that is not known.
        """
        reader = ProgressReader(folder, self.monitor, self.mode) if folder else None
        self.lines[key] = BoardLine(key, what, slot, epochs, reader, time.monotonic())
        action = f"is sent to {slot.removesuffix(_WAITING)}" if slot.endswith(_WAITING) else f"starts on {slot}"
        self.say(f"{self.noun} {key} {action}: {what}")

    def follow(self, slots: Mapping[str, str]) -> None:
        """Show where jobs run by now; on a cluster they may wait first, and their time counts from where they run.

        The table is drawn anew if it is time; call it several times a second.

        Args:
            slots: The slot of each job that the pool has, by its key.
        """
        for key, slot in slots.items():
            line = self.lines.get(key)
            if line is not None and line.slot != slot:
                line.slot, line.started = slot, time.monotonic()
                self.say(f"{self.noun} {key} starts on {slot}")
        self.refresh()

    def end(self, key: str, state: str, value: float | None = None) -> None:
        """Show that a job has ended.

        Args:
            key: The job's.
            state: done, pruned, or how else it ended.
            value: Its score where that is another one than the best of its epochs.
        """
        line = self.lines[key]
        line.look()
        line.state = state
        if value is not None:
            line.progress = JobProgress(line.progress.epochs, line.progress.value, value)
        score = "" if line.progress.best is None else f", {self.monitor} {line.progress.best:.4f}"
        self.say(
            f"{self.noun} {key} {state} after {format_duration(line.seconds, digits=0)}{score} ({self.standing()})"
        )
        self.refresh(now=True)

    def say(self, text: str) -> None:
        """Write a line where there is no table."""
        if self._live is None:
            self.console.print(Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Say something that is not about one job; the table keeps it below itself."""
        self.remark = text
        self.say(text)
        self.refresh(now=True)

    def refresh(self, *, now: bool = False) -> None:
        """Draw the table anew if it is time."""
        if self._live is None or (not now and time.monotonic() - self._drawn < REFRESH):
            return
        self._drawn = time.monotonic()
        for line in self.lines.values():
            if line.state == RUNNING:
                line.look()
        self._live.update(self.table(self.fitting()), refresh=True)

    def fitting(self) -> list[BoardLine]:
        """Return the lines that fit on the screen: those that run, and the last of the others."""
        room = max(1, self.console.height - FRAME_LINES)
        ended = [line for line in self.lines.values() if line.state != RUNNING]
        running = [line for line in self.lines.values() if line.state == RUNNING]
        kept = ended[max(0, len(ended) - max(0, room - len(running))) :]
        names = {line.name for line in [*kept, *running[:room]]}
        return [line for line in self.lines.values() if line.name in names]

    @property
    def best(self) -> BoardLine | None:
        """The job with the best score so far."""
        scored = [line for line in self.lines.values() if line.progress.best is not None]
        choose = max if self.mode == "max" else min
        return choose(scored, key=lambda line: line.progress.best or 0.0) if scored else None

    @property
    def left(self) -> float | None:
        """Seconds until all is done, by what the jobs have taken so far; None if nothing is known yet."""
        lines = self.lines.values()
        running = [line for line in lines if line.state == RUNNING]
        taken = [line.seconds for line in lines if line.state == DONE]
        taken = taken or [line.seconds + line.left for line in running if line.left is not None]
        if not taken or self.total is None:
            return None
        each = sum(taken) / len(taken)
        ahead = [max(0.0, each - line.seconds) if line.left is None else line.left for line in running]
        waiting = self.total - len(self.lines)
        return max([*ahead, 0.0]) if waiting <= 0 else (sum(ahead) + waiting * each) / self.slots

    def standing(self) -> str:
        """Return how many jobs stand how, and the best of them, in words."""
        states = [line.state for line in self.lines.values()]
        of = "" if self.total is None else f" of {self.total}"
        parts = [f"{states.count(DONE)}{of} done"]
        parts += [f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != DONE]
        best = self.best
        if best is not None:
            parts.append(f"best {best.progress.best:.4f} in {self.noun} {best.name}")
        if self.left is not None and any(state == RUNNING for state in states):
            parts.append(f"about {format_duration(self.left, digits=0)} left")
        return ", ".join(parts)

    def table(self, lines: Iterable[BoardLine]) -> RenderableType:
        """Return the table of some jobs, and below it how all of them stand."""
        shown = list(lines)
        table = Table(box=None, pad_edge=False, expand=False)
        for name in (self.noun, "device", "state"):
            table.add_column(name, no_wrap=True)
        for name in ("epoch", "value", "best", "time", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("settings", overflow="ellipsis", no_wrap=True)
        for line in shown:
            table.add_row(*self._cells(line))
        hidden = len(self.lines) - len(shown)
        words = [f"{hidden} more ended; {self.standing()}" if hidden else self.standing(), self.remark]
        head = Text(f"value: {self.monitor}", style="dim")
        return Group(head, table, *(Text(text) for text in words if text))

    def _cells(self, line: BoardLine) -> list[Text]:
        progress = line.progress
        epoch = f"{progress.epochs}" + (f"/{line.epochs}" if line.epochs else "") if progress.epochs else ""
        texts = [
            line.name,
            line.slot,
            line.state,
            epoch,
            format_score(progress.value, 4, missing=""),
            format_score(progress.best, 4, missing=""),
            format_duration(line.seconds, digits=0),
            "" if line.left is None else format_duration(line.left, digits=0),
            line.what,
        ]
        cells = [Text(text) for text in texts]
        cells[2].stylize(_STYLES.get(line.state, "red"))
        if line is self.best:
            cells[5].stylize("bold")
        return cells
