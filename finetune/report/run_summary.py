"""What a person reads on the screen before and after a run: what will be trained, and how good it became."""

import io
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from finetune.evaluation.fairness.group_metrics import weakest_line
from finetune.runtime.format import format_duration, format_interval, format_magnitude, format_score
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
MOVES = {
    "head": "head",
    "all": "all layers",
    "adapters": "adapters and head",
    "bias_norm": "biases, norms and head",
}


@dataclass(frozen=True)
class DataSummary:
    """The images of a run.

    Attributes:
        source: Where they come from.
        task: multiclass or multilabel.
        num_classes: Number of classes, or of labels.
        images: Number of images of each split, in the order shown.
        smallest: The rarest class of the training split and its number of images.
        largest: The most frequent one.
        skipped: Images left out because they cannot be read.
        unit: What is counted: images, or sequences.
    """

    source: str
    task: str
    num_classes: int
    images: Mapping[str, int]
    smallest: tuple[str, int]
    largest: tuple[str, int]
    skipped: int = 0
    unit: str = "images"


@dataclass(frozen=True)
class ModelSummary:
    """The network of a run.

    Attributes:
        name: timm's name.
        weights: Where its weights come from.
        parameters: How many it has, with the head.
        input_size: Channels, height and width of the images it sees.
    """

    name: str
    weights: str
    parameters: int
    input_size: tuple[int, int, int]


@dataclass(frozen=True)
class PhaseSummary:
    """A phase of a strategy.

    Attributes:
        name: Its name.
        train: What moves: head, all, last, adapters or bias_norm.
        fraction: Share of the layers that moves, for last.
        parameters: How many parameters move.
        epochs: At most.
        lr: Full learning rate of the deepest backbone layer.
        layer_decay: Factor of the rate from layer to layer; 1 for none.
        cached: Whether the backbone's features are computed once.
        solver: What finds the head's weights in place of the optimizer; None for nothing.
    """

    name: str
    train: str
    fraction: float
    parameters: int
    epochs: int
    lr: float
    layer_decay: float = 1.0
    cached: bool = False
    solver: str | None = None


def start_summary(
    data: DataSummary, model: ModelSummary, strategy: str, phases: Sequence[PhaseSummary]
) -> RenderableType:
    """Return what is about to be trained: images, network, and the phases of the strategy."""
    facts = _facts()
    facts.add_row("data", Text(_data_line(data)))
    facts.add_row("", Text(_balance_line(data)))
    if data.skipped:
        facts.add_row("", Text(f"{data.skipped:,} unreadable {data.unit} left out", style="yellow"))
    facts.add_row("model", Text(_model_line(model)))
    facts.add_row("strategy", Text(strategy))
    return Group(facts, _phase_table(phases))


def _data_line(data: DataSummary) -> str:
    splits = ", ".join(f"{split} {number:,}" for split, number in data.images.items())
    what = "classes" if data.task == "multiclass" else "labels, any number per image"
    return f"{data.source}: {splits} {data.unit}; {data.num_classes:,} {what}"


def _balance_line(data: DataSummary) -> str:
    (rare, fewest), (frequent, most) = data.smallest, data.largest
    if fewest == most:
        return f"balanced: {most:,} training {data.unit} of each"
    return f"training {data.unit}: {fewest:,} of the rarest ({rare}) to {most:,} of the commonest ({frequent})"


def _model_line(model: ModelSummary) -> str:
    channels, height, width = model.input_size
    size = f"{height} px" if height == width else f"{height} x {width} px"
    size += f", {channels} channels" if channels != 3 else ""
    return f"{model.name}, weights: {model.weights}, {format_magnitude(model.parameters)} parameters, {size}"


def _phase_table(phases: Sequence[PhaseSummary]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("phase")
    table.add_column("moves")
    table.add_column("parameters", justify="right")
    table.add_column("epochs", justify="right")
    table.add_column("rate")
    for phase in phases:
        moves = MOVES.get(phase.train, f"last {phase.fraction:.0%} of layers")
        moves += ", on cached features" if phase.cached else ""
        rate = f"{phase.lr:g}" + (f" x {phase.layer_decay:g}/layer" if phase.layer_decay != 1 else "")
        rate = rate if phase.solver is None else f"solved: {phase.solver}"
        table.add_row(Text(phase.name), moves, format_magnitude(phase.parameters), str(phase.epochs), rate)
    return table


def end_summary(
    document: Mapping[str, Any],
    *,
    seconds: float,
    folder: Path,
    split: str = "test",
    notes: Sequence[str] = (),
    report: Path | None = None,
) -> RenderableType:
    """Return how good the classifier became, and what can be done with it next.

    Args:
        document: The content of metrics.json.
        seconds: How long the run took.
        folder: The run folder.
        report: The page of the run; None where there is none.
        split: The split whose scores come first, with their intervals.
        notes: Further lines, such as how to look at the run in W&B.
    """
    facts = _facts()
    weakest = _weakest_line(document, split)
    if weakest:
        facts.add_row("weakest", Text(weakest))
    group = weakest_line(document.get("groups", {}).get(split, {}))
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
    return Group(_score_table(document, split), facts, *(_unbroken(line) for line in lines))


def _score_table(document: Mapping[str, Any], split: str) -> Table:
    others = [name for name in document["n"] if name != split]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("score")
    table.add_column(split, justify="right", style="bold")
    table.add_column("95 % interval")
    for other in others:
        table.add_column(other, justify="right", style="dim")
    for key, name in _NAMES.items():
        score = document[split].get(key)
        if score is None:
            continue
        interval = format_interval(score["low"], score["high"], 4) or ""
        rest = [format_score(document[other].get(key, {}).get("value"), 4, missing=UNDEFINED) for other in others]
        table.add_row(name, format_score(score["value"], 4, missing=UNDEFINED), interval, *rest)
    table.add_row("images", f"{document['n'][split]:,}", "", *(f"{document['n'][other]:,}" for other in others))
    return table


def _weakest_line(document: Mapping[str, Any], split: str) -> str:
    rows = document.get("per_class", {}).get(split, [])
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


def _facts() -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", width=8)
    table.add_column(overflow="fold")
    return table


def _unbroken(line: str) -> Text:
    head, rest = line[:10], line[10:]
    return Text.assemble((head, "bold"), rest, no_wrap=True, overflow="ignore")
