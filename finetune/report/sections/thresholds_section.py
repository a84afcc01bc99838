"""Decision threshold: which one to use for a stated aim, and what it gives on images it was not chosen on."""

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finetune.evaluation.bootstrap import binomial_interval
from finetune.evaluation.curves.operating_points import OperatingChoice, operating_point
from finetune.evaluation.curves.threshold_choice import ThresholdDecision, decide_at_threshold, threshold_table
from finetune.evaluation.curves.threshold_counts import ThresholdCounts, count_class, reported_classes
from finetune.evaluation.predictions import THRESHOLD, Predictions
from finetune.report.figures.thresholds_figure import threshold_figure
from finetune.report.html.blocks import Block, Cell, Code, Column, Fact, FactList, Section, Table, Text
from finetune.report.run_data import RunData
from finetune.report.sections.section_split import NAMES, section_split
from finetune.runtime.format import format_interval, format_score, known, listed

TITLE = "Decision threshold"
_USUAL = math.nextafter(THRESHOLD, 1)  # predicted is a probability above the threshold, flagged one of at least that
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*|0|[1-9][0-9]*")
MEASURES = ("precision", "recall", "f1", "specificity", "share")
_HEADINGS = {"f1": "F1", "share": "share flagged"}
HINTS = {
    "precision": "the share of flagged images that are of the class",
    "recall": "the share of the class's images that are flagged",
    "f1": "the harmonic mean of precision and recall",
    "specificity": "the share of other images that are not flagged",
    "share": "the share of all images that are flagged",
}


@dataclass(frozen=True)
class Chosen:
    """The threshold of one label: where it was chosen and judged, and what it does there; None if none was found."""

    label: str
    chosen_on: ThresholdCounts
    judged_on: ThresholdCounts
    chosen: ThresholdDecision | None
    judged: ThresholdDecision | None


def threshold_section(run_data: RunData, choice: OperatingChoice) -> Section | None:
    """Choose a threshold for the aim, for one label or each, and show what it gives.

    Raises:
        ConfigError: The label of the choice is not one of the run's.
    """
    told = section_split(run_data)
    if told is None:
        return None
    judged, test = told
    valid = run_data.splits.get("val")
    choosing, val = ("val", valid) if valid is not None and valid.num else (judged, test)
    number = choice.number(test.labels)
    numbers = reported_classes(test) if number is None else (number,)
    found = [_choose(val, test, number, choice) for number in numbers]
    lead = f"Chosen on the {NAMES[choosing]} split for {choice.aim}, judged on the {NAMES[judged]} split."
    blocks: list[Block] = []
    if choosing == judged:
        blocks.append(Text("Both are the same images, which flatters the threshold: it suits them best.", "warning"))
    blocks += _one(found[0], choice, (choosing, judged)) if len(found) == 1 else _several(found, choice, test)
    identity = str(run_data.record.get("id") or run_data.run.path.name)
    return Section("thresholds", TITLE, (*blocks, _how(identity, test.labels[numbers[-1]])), lead)


def _choose(val: Predictions, test: Predictions, number: int, choice: OperatingChoice) -> Chosen:
    chosen_on, judged_on = count_class(val, number), count_class(test, number)
    chosen = operating_point(chosen_on, choice)
    judged = None if chosen is None else decide_at_threshold(judged_on, chosen.threshold)
    return Chosen(test.labels[number], chosen_on, judged_on, chosen, judged)


def _how(identity: str, label: str) -> Code:
    """Say how another aim is stated."""
    setting = shlex.quote(f"operating.label={_value(label)}")
    aims = ("operating.min_recall=0.95", "operating.min_precision=0.95", "operating.cost_fp=1 operating.cost_fn=5")
    lines = [f"finetune report run={identity} {setting} {aim}" for aim in aims]
    return Code("\n".join(lines), "For another aim", folded=True)


def _value(label: str) -> str:
    """Write a label so that Hydra reads it as text."""
    if PLAIN.fullmatch(label) and label.lower() not in ("null", "true", "false", "nan", "inf"):
        return label
    escaped = label.replace('"', '\\"')
    return f'"{escaped}"'


def _one(found: Chosen, choice: OperatingChoice, splits: tuple[str, str]) -> list[Block]:
    """Tell all about one label: the threshold, what it gives, and what others would give."""
    blocks: list[Block] = []
    if found.chosen is None or found.judged is None:
        blocks.append(Text(_nothing([found], choice), "warning"))
    else:
        blocks.append(FactList(_facts(found.label, found.judged, splits[1])))
        blocks.append(_verdict(found, choice, splits))
    if found.chosen_on.num:
        blocks.append(threshold_figure(found.chosen_on, found.chosen, found.label))
        blocks.append(_table(found, splits))
    return blocks


def _facts(label: str, judged: ThresholdDecision, split: str) -> tuple[Fact, ...]:
    where = NAMES[split]
    hits, nums = np.array([judged.hits] * 2), np.array([judged.flagged, judged.hits + judged.misses])
    low, high = binomial_interval(hits, nums)
    notes = [
        f"{judged.hits:,} of {num:,}, {format_interval(low[k], high[k]) or 'no interval'}" for k, num in enumerate(nums)
    ]
    return (
        Fact(f"threshold of {label}", str(_threshold(judged.threshold)), "flagged is a probability of at least that"),
        Fact(f"precision on {where}", format_score(judged.precision), notes[0]),
        Fact(f"recall on {where}", format_score(judged.recall), notes[1]),
        Fact(f"flagged on {where}", format_score(judged.share), f"{judged.flagged:,} images"),
    )


def _verdict(found: Chosen, choice: OperatingChoice, splits: tuple[str, str]) -> Text:
    """Say whether the aim is reached on the images that the threshold is judged on."""
    assert found.chosen is not None and found.judged is not None
    where, judged = NAMES[splits[1]], found.judged
    if choice.cost_fp is not None:
        every, nothing = decide_at_threshold(found.judged_on, -math.inf), decide_at_threshold(found.judged_on, math.inf)
        each = [format_score(choice.cost(row) / max(found.judged_on.num, 1)) for row in (judged, nothing, every)]
        return Text(
            f"On {where} an image costs {each[0]} on average; flagging nothing would cost {each[1]}, "
            f"flagging every image {each[2]}."
        )
    for name, least in (("precision", choice.min_precision), ("recall", choice.min_recall)):
        if least is not None:
            value = getattr(judged, name)
            kept = known(value) is not None and value >= least
            return Text(
                f"The {name} of at least {least:g} is {'kept' if kept else 'not kept'} on {where}: "
                f"{format_score(value)}. On {NAMES[splits[0]]} it was {format_score(getattr(found.chosen, name))}.",
                "good" if kept else "warning",
            )
    return Text(
        f"Its F1 is {format_score(judged.f1)} on {where}, and {format_score(found.chosen.f1)} on {NAMES[splits[0]]}."
    )


def _nothing(found: list[Chosen], choice: OperatingChoice) -> str:
    """Say which labels no threshold suits, and why."""
    absent = [each.label for each in found if not each.chosen_on.positives]
    short = [each.label for each in found if each.chosen_on.positives]
    sentences = []
    if absent:
        sentences.append(f"There is no image to choose a threshold on: {listed(absent)}.")
    if short:
        sentences.append(f"No threshold reaches {choice.aim}: {listed(short)}. Ask for less.")
    return " ".join(sentences)


def _table(found: Chosen, splits: tuple[str, str]) -> Table:
    """Show the useful thresholds of one label on both splits."""
    columns = [Column("threshold", hint="flagged is a probability of at least that"), Column("chosen")]
    for split in dict.fromkeys(splits):
        columns += _measure_columns(MEASURES, NAMES[split])
    also = () if found.chosen is None else (found.chosen.threshold,)
    rows: list[tuple[Cell, ...]] = []
    for row in threshold_table(found.chosen_on, also):
        decisions = [row] if splits[0] == splits[1] else [row, decide_at_threshold(found.judged_on, row.threshold)]
        cells = [known(getattr(decision, name)) for decision in decisions for name in MEASURES]
        rows.append((_threshold(row.threshold), "chosen" if row.threshold in also else None, *cells))
    caption = "Each of these flags more of the class than any threshold with as few false alarms."
    return Table(f"Useful thresholds of {found.label}", tuple(columns), tuple(rows), caption)


def _measure_columns(names: Sequence[str], where: str) -> list[Column]:
    return [Column(f"{_HEADINGS.get(name, name)}, {where}", digits=3, hint=HINTS[name]) for name in names]


def _several(found: list[Chosen], choice: OperatingChoice, test: Predictions) -> list[Block]:
    """Show the threshold of each label and what it gives."""
    columns = [Column("label"), Column("threshold", hint="flagged is a probability of at least that")]
    for where in ("where chosen", "where judged"):
        columns += _measure_columns(MEASURES[:3], where)
    columns.append(Column("share flagged", digits=3, hint=HINTS["share"]))
    if test.multilabel:
        columns.append(
            Column(f"F1 at {THRESHOLD:g}", digits=3, hint="with the threshold that is used without a choice")
        )
    rows = [_row(each, multilabel=test.multilabel) for each in found]
    blocks: list[Block] = [Table("The threshold of each label", tuple(columns), tuple(rows))]
    missing = [each for each in found if each.chosen is None]
    if missing:
        blocks.insert(0, Text(_nothing(missing, choice), "warning"))
    return blocks


def _row(found: Chosen, *, multilabel: bool) -> tuple[Cell, ...]:
    usual = (known(decide_at_threshold(found.judged_on, _USUAL).f1),) if multilabel else ()
    if found.chosen is None or found.judged is None:
        return (found.label, None, *([None] * 7), *usual)
    cells = [known(getattr(row, name)) for row in (found.chosen, found.judged) for name in MEASURES[:3]]
    return (found.label, _threshold(found.chosen.threshold), *cells, known(found.judged.share), *usual)


def _threshold(value: float) -> float | str:
    return value if math.isfinite(value) else "flag nothing"
