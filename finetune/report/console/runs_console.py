"""A list on the screen: one row a line where there is room, plain text where it is piped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from finetune.report.runs_table.entries import EntryValue, RunEntry
from finetune.runtime.format import DASH, format_duration, format_with_interval

if TYPE_CHECKING:
    from rich.console import Console

_GAP = 2
SHORTEST_NAME = 16
_STYLES = {"damaged": "red", "failed": "red", "interrupted": "yellow", "running": "cyan"}


@dataclass(frozen=True)
class Layout:
    """Which columns are shown, and which of them with an interval."""

    columns: tuple[str, ...]
    intervals: frozenset[str] = field(default_factory=frozenset)

    def cells(self, entry: RunEntry) -> list[str]:
        """Return what a row shows."""
        return [self.cell(entry, key) for key in self.columns]

    def cell(self, entry: RunEntry, key: str) -> str:
        """Return what a row shows of a value."""
        value = entry.value(key)
        interval = entry.interval(key) if key in self.intervals else None
        if interval is None or not isinstance(value, float):
            return format_value(key, value)
        return format_with_interval(value, *interval, joint=DASH)

    def widths(self, entries: Sequence[RunEntry]) -> list[int]:
        """Return how wide each column is."""
        rows = [list(self.columns), *map(self.cells, entries)]
        return [max(len(row[place]) for row in rows) for place in range(len(self.columns))]

    def fits(self, entries: Sequence[RunEntry], width: int) -> bool:
        """Return whether the rows fit a width, where the first column may be broken."""
        first, *others = self.widths(entries)
        return min(first, SHORTEST_NAME) + sum(others) + _GAP * len(others) <= width


def format_value(key: str, value: EntryValue) -> str:
    """Return a value as the screen shows it."""
    if value is None:
        return DASH
    if key == "time" and isinstance(value, int | float):
        return format_duration(float(value)).replace(" ", "").replace("min", "m")  # such as 2m31s
    if isinstance(value, float):
        return f"{value:.3f}" if "/" in key and 1e-3 <= abs(value) < 1e3 or value == 0 else f"{value:.4g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def layouts(columns: tuple[str, ...], entries: Sequence[RunEntry], dispensable: Sequence[str]) -> Iterator[Layout]:
    """Yield ways to show the columns, each narrower than the one before."""
    metrics = [key for key in columns if any(entry.interval(key) is not None for entry in entries)]
    yield Layout(columns, frozenset(metrics))
    kept = columns
    for key in dispensable:
        yield Layout(kept, frozenset(metrics[:1]))
        kept = tuple(name for name in kept if name != key)
    yield Layout(kept, frozenset(metrics[:1]))
    yield Layout(kept)


def show_runs(
    entries: Sequence[RunEntry],
    columns: tuple[str, ...],
    console: "Console",
    *,
    dispensable: Sequence[str] = (),
    total: int,
    what: str,
) -> None:
    """Print rows.

    Args:
        entries: The rows.
        columns: Names of the values.
        console: Where.
        dispensable: The columns that a narrow screen does without, the first first.
        total: How many rows there are with those that are not shown.
        what: What rows are, in the plural.
    """
    from rich.table import Table
    from rich.text import Text

    ways = list(layouts(columns, entries, dispensable))
    layout = next((way for way in ways if way.fits(entries, console.width)), ways[-1])
    fits = layout.fits(entries, console.width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for key in layout.columns:
        numbers = any(isinstance(entry.value(key), int | float) for entry in entries)
        whole = fits and key != layout.columns[0]
        table.add_column(Text(key), justify="right" if numbers else "left", overflow="fold", no_wrap=whole)
    for entry in entries:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in layout.cells(entry)))
    console.print(table)
    lines = [f"{len(entries):,} of {total:,} {what}" if len(entries) != total else f"{total:,} {what}"]
    hidden = ", ".join(key for key in columns if key not in layout.columns)
    if hidden:
        lines.append(f"No room for {hidden}: widen the window, choose columns=[…], or write output=runs.csv")
    for line in lines:
        console.print(line, style="dim", highlight=False, markup=False)
