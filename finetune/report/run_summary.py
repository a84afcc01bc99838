"""What a person reads on the screen after a run: how good it became, and what can be done with it next."""

import io
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from finetune.evaluation.fairness.group_metrics import weakest_line
from finetune.runtime.format import format_duration, format_interval, format_score
from finetune.runtime.log_files import record

UNDEFINED = "undefined"
_NAMES = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "accuracy_top5": "top-5 accuracy",
    "f1_macro": "macro F1",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "calibration_error": "calibration error",
}


def end_summary(
    document: Mapping[str, Any],
    *,
    seconds: float,
    folder: Path,
    notes: Sequence[str] = (),
    report: Path | None = None,
) -> RenderableType:
    """Return how good the classifier became on the test split, and what can be done with it next.

    Args:
        document: The content of metrics.json.
        seconds: How long the run took.
        folder: The run folder.
        report: The page of the run; None where there is none.
        notes: Further lines, such as how to look at the run in W&B.
    """
    facts = facts_grid()
    for split, count in document.get("partial", {}).items():
        facts.add_row("partial", Text(partial_line(split, count), "yellow"))
    weakest = _weakest_line(document)
    if weakest:
        facts.add_row("weakest", Text(weakest))
    group = weakest_line(document.get("groups", {}).get("test", {}))
    if group:
        facts.add_row("" if weakest else "weakest", Text(group))
    facts.add_row("time", format_duration(seconds))
    place = quoted(folder)
    lines = [
        f"run       {place}",
        *([f"report    {quoted(report)}"] if report is not None else []),
        *(f"          {note}" for note in notes),
        f"next      finetune evaluate run={place}",
        f"          finetune predict run={place} input=FOLDER",
    ]
    unbroken: dict[str, Any] = {"no_wrap": True, "overflow": "ignore"}
    texts = [Text.assemble((line[:10], "bold"), line[10:], **unbroken) for line in lines]
    return Group(_score_table(document), facts, *texts)


def partial_line(split: str, count: Mapping[str, int]) -> str:
    """Return that a score is of some images of a split alone."""
    return (
        f"{split}: {count['n']:,} of {count['of']:,} images (trainer.limit_batches), so its scores do not measure the "
        "whole split"
    )


def _score_table(document: Mapping[str, Any]) -> Table:
    others = [name for name in document["n"] if name != "test"]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("score")
    table.add_column("test", justify="right", style="bold")
    table.add_column("95 % interval")
    for other in others:
        table.add_column(other, justify="right", style="dim")
    for key, name in _NAMES.items():
        score = document["test"].get(key)
        if score is None:
            continue
        interval = format_interval(score["low"], score["high"], 4) or ""
        rest = [format_score(document[other].get(key, {}).get("value"), 4, missing=UNDEFINED) for other in others]
        table.add_row(name, format_score(score["value"], 4, missing=UNDEFINED), interval, *rest)
    table.add_row("images", f"{document['n']['test']:,}", "", *(f"{document['n'][other]:,}" for other in others))
    return table


def _weakest_line(document: Mapping[str, Any]) -> str:
    rows = document.get("per_class", {}).get("test", [])
    measured = [row for row in rows if row.get("recall") is not None and row.get("support")]
    if not measured:
        return ""
    row = min(measured, key=lambda candidate: candidate["recall"])
    return (
        f"class {row['label']}: recall {format_score(row['recall'], 4, missing=UNDEFINED)} on {row['support']:,} images"
    )


def print_summary(summary: RenderableType, console: Console | None = None) -> None:
    """Print a summary; lines with a path or a command are never broken, so that they can be copied."""
    console = console or Console(highlight=False)
    console.print()
    console.print(summary, crop=False)


def show_lines(summary: RenderableType) -> None:
    """Print a summary, and keep it in the run's log."""
    print_summary(summary)
    plain = Console(file=io.StringIO(), width=120)
    print_summary(summary, plain)
    record.info("\n%s", plain.file.getvalue().rstrip())  # type: ignore[attr-defined]


def quoted(folder: Path) -> str:
    """Return a path as it is typed as the value of an override, in quotes where the shell or Hydra needs them."""
    text = str(folder)
    if all(character.isalnum() or character in "/_-.:%+@" for character in text):
        return text
    escaped = re.sub(r'(\\+)(?="|$)', r"\1\1", text).replace('"', '\\"')
    return shlex.quote(f'"{escaped}"')


def facts_grid() -> Table:
    """Return a table of named facts, without any."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", width=8)
    table.add_column(overflow="fold")
    return table
