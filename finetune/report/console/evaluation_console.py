"""An evaluation on the screen: scores beside those that were stored, drift, and the run over time."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from finetune.evaluation.drift.timeline import DRIFTS, TimelineRow
from finetune.runtime.format import DASH, format_change, format_interval, format_p, format_score, format_share

_Document = dict[str, Any]

_ENDS = ("value", "low", "high")
COMPARED = {"inputs": "images (features)", "classes": "predicted classes", "confidence": "confidence"}
_SHORT = {"inputs": "inputs", "classes": "classes", "confidence": "confid."}
_WIDE = 110  # columns of a screen that has room for each p


def difference_table(old: _Document, new: _Document, split: str, num: int) -> Table:
    """Show each metric as it was stored, as it is now with its interval, and the difference."""
    table = Table(title=f"{split}, n = {num:,}")
    for column in ("metric", "stored", "now", "interval", "difference"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name in {**new, **old}:
        before = old.get(name, {}).get("value")
        after = new.get(name, {"value": None, "low": None, "high": None})
        known = before is not None and after["value"] is not None
        change = format_change(after["value"] - before) if known else DASH
        table.add_row(name, format_score(before, 4), *cells_of(after), change)
    return table


def show_drift(drift: Mapping[str, Any] | None, console: Console) -> None:
    """Print how far the images are from those of validation, where that was measured."""
    if drift is None:
        return
    console.print(drift_table(drift))
    for line in [*drift["notes"], _verdict(drift)]:
        console.print(line, highlight=False, markup=False)


def drift_table(drift: Mapping[str, Any]) -> Table:
    """Show each distance beside what chance exceeds in one of twenty cases, and its p."""
    count = drift["n"]
    table = Table(title=f"drift of {count['new']:,} images against {count['reference']:,} of validation")
    for column in ("of", "distance", "chance", "p"):
        table.add_column(column, justify="left" if column == "of" else "right")
    for name in DRIFTS:
        if (found := drift[name]) is not None:
            distance, chance = (format_score(found[key], 4) for key in ("distance", "chance"))
            table.add_row(COMPARED[name], distance, f"< {chance}", format_p(found["p"], 1e-3))
    return table


def _verdict(drift: Mapping[str, Any]) -> str:
    """Return in a sentence what has drifted, and how the predictions moved."""
    if not drift["drifted"]:
        return "No drift beyond chance."
    names = ", ".join(COMPARED[name] for name in drift["drifted"])
    moved = ", ".join(f"{row['label']} {row['before']:.1%} to {row['now']:.1%}" for row in drift["shares"])
    told = f" Predicted most differently: {moved}." if "classes" in drift["drifted"] else ""
    return f"DRIFT beyond chance: {names}.{told} Scores on such images may not be those of the test split."


def show_ood(found: Mapping[str, Any] | None, console: Console) -> None:
    """Print how many images are accepted as like those of training, and how well others are told from them."""
    if not found:
        return
    if "accepted" in found:
        own = (1 - found["accepted"]["own"][name] for name in ("value", "high", "low"))
        others = found.get("called_unlike")
        told = "" if others is None else f"; of {found['data']}: {format_share(*map(others.get, _ENDS))}"
        said = f"out-of-distribution ({found['kind']}), unlike the training images: {format_share(*own)}{told}"
        console.print(said, highlight=False, soft_wrap=True)
    if "scores" in found:
        console.print(ood_table(found))
    for note in found["notes"]:
        console.print(note, highlight=False, markup=False)


def ood_table(found: Mapping[str, Any]) -> Table:
    """Show how well each score tells other images from the run's own."""
    count = found["n"]
    table = Table(title=Text(f"{count['others']:,} images of {found['data']} against {count['own']:,} of the run"))
    for column in ("score", "AUROC", "interval", "FPR at 95 % TPR", "interval"):
        table.add_column(column, justify="left" if column == "score" else "right")
    for kind, scores in found["scores"].items():
        cells = [text for name in ("auroc", "fpr_at_95_tpr") for text in cells_of(scores[name])]
        table.add_row(kind, *cells)
    return table


def cells_of(score: Mapping[str, Any]) -> tuple[str, str]:
    """Return a score and its interval as text."""
    return format_score(score["value"], 4), format_interval(score["low"], score["high"], 4) or DASH


def timeline_table(rows: Sequence[TimelineRow], width: int) -> Table:
    """Show the evaluations of a run, oldest first; where there is room, with the times and each p."""
    wide = width >= _WIDE
    splits = sorted({str(row["split"]) for row in rows})
    title = f"evaluations over time ({', '.join(splits)}), * drift beyond chance"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("when", no_wrap=True)
    table.add_column("images", overflow="fold")
    table.add_column("split", no_wrap=True) if len(splits) > 1 else None
    for head in ("n", "accuracy", *(f"{_SHORT[name]}{' (p)' if wide else ''}" for name in DRIFTS)):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        value, low, high = (_number(row.get(f"accuracy{end}")) for end in ("", "_low", "_high"))
        when = str(row["when"] or DASH)
        cells = [when if wide else when[:10], str(row["images"]), *([str(row["split"])] if len(splits) > 1 else [])]
        cells += [_number(row["n"]), f"{value} ({low}{DASH}{high})"]
        table.add_row(*map(Text, cells), *(drifted(row, name, both=wide) for name in DRIFTS))
    return table


def drifted(row: TimelineRow, name: str, *, both: bool) -> Text:
    """Write what an evaluation found of drift; what is beyond chance stands out, and has a star."""
    distance, p = row.get(f"drift/{name}"), row.get(f"drift/{name}_p")
    if not isinstance(distance, float) or not isinstance(p, float):
        return Text(DASH)
    beyond = name in str(row["drifted"]).split(", ")
    text = f"{distance:.3f} ({format_p(p, 1e-3)})" if both else f"{distance:.3f}"
    return Text(f"{'* ' if beyond else ''}{text}", style="bold yellow" if beyond else "")


def _number(value: str | int | float | None) -> str:
    """Write a number, and a dash where there is none."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return DASH if value is None else f"{value:,}" if isinstance(value, int) else value
