"""A comparison in words, as a document, and as a table on the screen."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from finetune.evaluation.compare.comparison import Comparison, RunPair
from finetune.evaluation.compare.gate import Verdict
from finetune.evaluation.compare.paired import LOWER_IS_BETTER, Difference
from finetune.runtime.format import DASH, format_change, format_p, format_score

_SHOWN = ("accuracy", "exact_match", "f1_macro", "roc_auc", "average_precision", "calibration_error", "loss")


def verdict(pair: RunPair, baseline: str) -> str:
    """Return in a sentence or two whether a candidate is better."""
    name = pair.key
    change = pair.changes.metrics[name]
    words = name.replace("_", " ")
    p = f"McNemar's exact p = {format_p(pair.test.p)}, corrected {format_p(pair.corrected)}"
    if math.isnan(change.low):
        return f"{pair.name} has {100 * change.value:+.1f} points of {words} against {baseline} ({p}; no interval)."
    span = f"95 % interval {100 * change.low:+.1f} to {100 * change.high:+.1f}; {p}"
    if pair.shown:
        side = "better" if change.value > 0 else "worse"
        return f"{pair.name} is {side} than {baseline} by {100 * abs(change.value):.1f} points of {words} ({span})."
    return (
        f"No difference between {pair.name} and {baseline} that these {pair.first.num:,} images can show: "
        f"{100 * change.value:+.1f} points of {words} ({span}). One of about {100 * pair.detectable:.1f} points would "
        "be seen with 80 % power."
    )


def comparison_document(comparison: Comparison, verdicts: Sequence[tuple[str, Verdict]]) -> dict[str, Any]:
    """Return the content of compare.json."""
    return {
        "baseline": {"name": comparison.baseline.name, "path": str(comparison.baseline.path)},
        "split": comparison.split, "images_left_out": comparison.left_out,
        "resamples": comparison.resamples, "seed": comparison.seed,
        "candidates": [candidate(pair, comparison.baseline.name) for pair in comparison.pairs],
        "gate": [{"candidate": name, "condition": str(each.condition), "passed": each.passed, "reason": each.reason}
                 for name, each in verdicts],
    }  # fmt: skip


def candidate(pair: RunPair, baseline: str) -> dict[str, Any]:
    """Return what is known of a candidate."""
    return {
        "name": pair.name, "verdict": verdict(pair, baseline), "images": pair.first.num,
        "metrics": {name: each.plain() for name, each in pair.changes.metrics.items()},
        "per_class": {label: {name: each.plain() for name, each in row.items()}
                      for label, row in pair.changes.classes.items()},
        "per_group": {column: {group: {"n": number, **each.plain()} for group, (number, each) in groups.items()}
                      for column, groups in pair.groups.items()},
        "mcnemar": {**vars(pair.test), "p_holm": pair.corrected},
        "detectable_accuracy": pair.detectable,
        "shown": pair.shown, "agreement": pair.agreement,
        "won": images(pair, pair.won()), "lost": images(pair, pair.lost()),
    }  # fmt: skip


def images(pair: RunPair, rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return what both say of some images, by name of the column."""
    first, second = pair.first, pair.second
    labels, before, after = first.label_names, first.predicted_names, second.predicted_names
    return [
        {"id": str(first.ids[row]), "path": str(first.paths[row]), "label": labels[row],
         "baseline": before[row], "baseline_probability": float(first.probabilities[row].max()),
         "candidate": after[row], "candidate_probability": float(second.probabilities[row].max())}
        for row in rows.tolist()
    ]  # fmt: skip


def omission(comparison: Comparison) -> str | None:
    """Return what is to be said of images that are left out; None without any."""
    if not comparison.left_out:
        return None
    return (
        f"{comparison.left_out:,} images are left out, since not all runs have them: this compares the "
        f"{comparison.pairs[0].first.num:,} in common."
    )


def screen_table(pair: RunPair, baseline: str) -> Table:
    """Return the metrics of a pair as a table of at most 80 columns."""
    table = Table(title=f"{pair.name} against {baseline}, n = {pair.first.num:,}", title_justify="left", box=None,
                  padding=(0, 2, 0, 0))  # fmt: skip
    for column in ("metric", "baseline", "candidate", "difference", "95 % interval"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name in _SHOWN:
        change = pair.changes.metrics.get(name)
        if change is not None:
            interval = (
                DASH if math.isnan(change.low) else f"{format_change(change.low)} to {format_change(change.high)}"
            )
            scores = (format_score(score, 4) for score in (change.first, change.second))
            style = colour(name, change) if pair.decides(name) else None
            table.add_row(name, *scores, format_change(change.value), interval, style=style)
    return table


def against_best_lines(comparison: Comparison) -> Group:
    """Return how an ensemble stands beside its best member."""
    best = comparison.baseline.name
    return Group(
        *(part for pair in comparison.pairs for part in (screen_table(pair, f"its best member, {best}"),
                                                      Text(verdict(pair, best))))
    )  # fmt: skip


def colour(name: str, change: Difference) -> str:
    """Return how a decided difference is shown."""
    better = change.value < 0 if name in LOWER_IS_BETTER else change.value > 0
    return "green" if better else "red"


Verdicts = list[tuple[str, Verdict]]


def show_comparison(comparison: Comparison, verdicts: Verdicts, output: Path) -> None:
    """Print the verdict and the metrics of each pair, and how it stands with the gate."""
    console = Console()
    if (missing := omission(comparison)) is not None:
        console.print(missing, style="yellow", soft_wrap=True)
    for pair in comparison.pairs:
        console.print(screen_table(pair, comparison.baseline.name))
        console.print(verdict(pair, comparison.baseline.name), highlight=False, markup=False)
        console.print()
    for name, each in verdicts:
        word = "passes" if each.passed else "fails"
        said = f"{name} {word} {each.condition}: {each.reason}."
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Written to {output / 'compare.html'} and compare.json", highlight=False, soft_wrap=True)
