"""The robustness of a stored run: all passes of an evaluation, and the table of them on the screen.

It decides what is said of them while they run and afterwards; the numbers are those of `measure`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from finetune.data.table import ImageTable
from finetune.errors import ConfigError
from finetune.evaluation.rerun_settings import InferenceSettings
from finetune.evaluation.robustness.corrupted_accuracy import Wrong, measure, robustness_document
from finetune.models.bundle import Bundle
from finetune.runtime.format import DASH, format_interval, format_score, format_with_interval

_Document = dict[str, Any]


def robustness_of(
    bundle: Bundle,
    table: ImageTable,
    split: str,
    ways: Sequence[Wrong],
    settings: InferenceSettings,
    *,
    resamples: int,
    seed: int,
) -> _Document | None:
    """Return how well the images of a split are answered with something wrong; None where no way is asked for.

    Raises:
        ConfigError: The run reads sequences.
        DataError: An image cannot be read.
    """
    if not ways:
        return None
    if bundle.network.frames is not None:
        raise ConfigError(
            "robustness=true corrupts single images, and this run reads sequences of frames. Set robustness=false."
        )
    console = Console()
    rows = table.rows(split)
    count = 1 + len(ways)
    console.print(f"Robustness: {count} passes over {len(rows):,} images, {count * len(rows):,} in all.")
    parts = measure(bundle, table, rows, ways, settings, seed)
    steps = math.ceil(len(rows) / max(1, settings.batch_size // count))
    shown = track(parts, "Corrupting", steps, console=console, transient=True, disable=not console.is_terminal)
    values = np.concatenate(list(shown), axis=1)
    return {"split": split, **robustness_document(values, ways, resamples=resamples, seed=seed)}


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
        table.add_row(
            words(name),
            *cells,
            format_score(found["mean"]["value"]),
            format_interval(found["mean"]["low"], found["mean"]["high"]) or DASH,
        )
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
