"""The comparison on the screen: a table, what was left out, and what to type next."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from finetune.search.ranking.ranking_results import RANKING_COSTS, RankedBackbone, Skipped, pareto, ranked

WIDTH = 140  # of a file, which has room for all columns


def show_ranking(
    entries: Sequence[RankedBackbone], skipped: Sequence[Skipped], found: dict[str, Any], console: Console
) -> None:
    """Print the table and what was left out.

    Args:
        entries: One or more.
        skipped: What was left out.
        found: The facts of the comparison.
        console: Where.
    """
    title = f"{found['title']}, {found['device']}, {found['precision']}"
    table = Table(title=title, caption="* no other is as accurate and as cheap", box=SIMPLE_HEAD)
    many = f"of {found['batch_size']}"
    for name in ("backbone", "accuracy", "NLL", "LogME", "params", "ms", many, "memory", "features", "input"):
        table.add_column(name, justify="left" if name == "backbone" else "right", no_wrap=name != "backbone")
    fast, small = ({entry.candidate for entry in pareto(entries, kind)} for kind in RANKING_COSTS)
    for entry in ranked(entries):
        cost, score = entry.footprint, entry.score
        table.add_row(
            entry.candidate.name,
            f"{score.accuracy:.3f} ± {score.accuracy_error:.3f}",
            f"{score.nll:.3f} ± {score.nll_error:.3f}",
            f"{score.logme:.3f}",
            f"{'* ' if entry.candidate in small else ''}{cost.parameters / 1e6:.1f} M",
            f"{'* ' if entry.candidate in fast else ''}{cost.latency_ms:.1f}",
            f"{cost.latency_batch_ms:.1f}",
            f"{cost.peak_memory / 1e6:,.0f} MB",
            f"{entry.num_features:,}",
            f"{entry.height} x {entry.width}",
        )
    console.print(table)
    reasons: dict[str, list[str]] = {}
    for left in skipped:
        reasons.setdefault(left.reason, []).append(left.name)
    for reason, names in reasons.items():
        say(console, f"Skipped {', '.join(names)}: {reason}")


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)
