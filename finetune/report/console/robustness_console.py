"""The robustness of a stored run on the screen: accuracy on corrupted images, and in a sentence what is left of it."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from finetune.runtime.format import DASH, format_interval, format_score, format_with_interval

_Document = dict[str, Any]


def show_robustness(document: _Document | None, console: Console) -> None:
    """Print the accuracy of each corruption in each severity, and of all of them beside that of clean images."""
    if document is None:
        return
    severities = sorted({severity for found in document["corruptions"].values() for severity in found["severities"]})
    table = Table(title=f"Accuracy on corrupted images, n = {document['n']:,}", box=SIMPLE_HEAD)
    table.add_column("corruption")
    for name in (*(f"severity {severity}" for severity in severities), "mean", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, found in document["corruptions"].items():
        cells = [format_score(found["severities"][severity]["value"]) for severity in severities]
        mean = found["mean"]
        interval = format_interval(mean["low"], mean["high"]) or DASH
        table.add_row(words(name), *cells, format_score(mean["value"]), interval)
    console.print(table)
    console.print(sentence(document), highlight=False, soft_wrap=True)


def sentence(document: _Document) -> str:
    """Return in a sentence how much of the accuracy is left on corrupted images."""
    clean, mean, relative = (document[name] for name in ("clean", "mean", "relative"))
    left = "" if relative["value"] is None else f", {_with_interval(relative)} of what it was"
    return (
        f"Over all corruptions the accuracy is {_with_interval(mean)}, on clean images {_with_interval(clean)}{left}."
    )


def words(name: str) -> str:
    """Return the name of a corruption as it is written."""
    return name.replace("_", " ").replace("jpeg", "JPEG").replace("gaussian", "Gaussian")


def _with_interval(score: _Document) -> str:
    """Return an accuracy with its interval."""
    return format_with_interval(score["value"], score["low"], score["high"])
