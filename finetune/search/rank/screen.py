"""The comparison on the screen: a table, what was left out, and what to type next.

It decides what is shown of a comparison; the numbers and their order are those of `results`.
"""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from finetune.search.rank.results import Entry, Skipped, pareto, ranked


def show(
    entries: Sequence[Entry], skipped: Sequence[Skipped], found: dict[str, Any], title: str, console: Console
) -> None:
    """Print the table and what was left out."""
    batch = found["batch_size"]
    table = Table(title=f"{title}, {found['device']}, {found['precision']}", caption="* best trade-off with accuracy")
    names = ("backbone", "accuracy", "NLL", "LogME", "params", "ms", f"ms (of {batch})", "memory", "features", "input")
    for name in names:
        table.add_column(name, justify="left" if name == "backbone" else "right", overflow="fold")
    fast, small = ({entry.candidate for entry in pareto(entries, kind)} for kind in ("latency_ms", "parameters"))
    for entry in ranked(entries):
        cost, score = entry.footprint, entry.score
        table.add_row(
            entry.candidate.name,
            f"{score.accuracy:.4f} ± {score.accuracy_error:.4f}",
            f"{score.nll:.4f} ± {score.nll_error:.4f}",
            f"{score.logme:.3f}",
            f"{cost.parameters / 1e6:.1f} M{' *' if entry.candidate in small else ''}",
            f"{cost.latency_ms:.1f}{' *' if entry.candidate in fast else ''}",
            f"{cost.latency_batch_ms:.1f}",
            f"{cost.peak_memory / 1e6:,.0f} MB",
            f"{entry.num_features:,}",
            f"{entry.height} x {entry.width}",
        )
    console.print(table)
    for left in skipped:
        say(console, f"Skipped {left.name}: {left.reason}")


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)
