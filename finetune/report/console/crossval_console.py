"""The scores of the folds of a cross-validation on the screen."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from finetune.runtime.format import DASH, format_interval, format_score

_SHOWN = ("accuracy", "exact_match", "f1_macro", "roc_auc", "average_precision", "loss", "calibration_error")


def crossval_lines(document: Mapping[str, Any]) -> Group:
    """Return the scores of the folds for the screen."""
    cv = document["cv"]
    head = Text(f"{cv['folds']} folds; {cv['images']:,} images, each predicted by models that have not seen it")
    shown = Table(box=None, pad_edge=False)
    for heading in ("score", "mean of folds", "spread", "95 % interval of the mean"):
        shown.add_column(heading, justify="left" if heading == "score" else "right", no_wrap=True)
    for name in [name for name in _SHOWN if name in cv["metrics"]]:
        entry = cv["metrics"][name]
        interval = format_interval(entry["low"], entry["high"], 4) or DASH
        shown.add_row(
            name.replace("_", " "), format_score(entry["mean"], 4), format_score(entry["spread"], 4), interval
        )
    return Group(head, *([shown] if cv["metrics"] else []))
