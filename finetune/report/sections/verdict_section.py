"""Verdict: how good a run is, beside which baselines, and whether that can be relied on."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from finetune.errors import DataError
from finetune.evaluation.compare.paired import OtherImagesError, align_predictions, compare_pair
from finetune.evaluation.metrics import WHOLE
from finetune.evaluation.predictions import Predictions
from finetune.report.html.blocks import Block, Column, Fact, FactList, Section, Table, Text, Tone
from finetune.report.run_data import RunData
from finetune.report.run_summary import partial_line
from finetune.report.sections.section_split import NAMES, section_split
from finetune.runtime.format import format_count, format_score

_FEW = 100  # images below which a score says little
_WIDE = 0.1  # width of an interval from which on it says little
WEAK = 0.5  # recall below which a class is called weak


def verdict_section(run_data: RunData) -> Section | None:
    """Return the score with its interval, the baselines, and what speaks against relying on it."""
    told = section_split(run_data)
    if told is None:
        text = f"The run is {run_data.run.status} and has not predicted anything yet: there is only its history."
        return Section("verdict", "Verdict", (Text(text, "warning"),))
    split, predictions = told
    name = WHOLE[predictions.task]
    score = run_data.document.get(split, {}).get(name, {})
    blocks: list[Block] = [FactList(tuple(facts(run_data, split, predictions, name, score)))]
    against = [Text(text, tone) for text, tone in doubts(run_data, split, predictions, score)]
    blocks += against or [Text(reliable(run_data, split, predictions, score), "good")]
    rows = tuple(baselines(run_data, predictions, name))
    if rows:
        columns = (Column("baseline"), Column(name.replace("_", " "), 4), Column("images"), Column("note"))
        blocks.append(Table("Baselines", columns, rows))
    return Section("verdict", "Verdict", tuple(blocks), _sentence(split, predictions, name, score))


def _sentence(split: str, predictions: Predictions, name: str, score: dict[str, Any]) -> str:
    """Return the score in a sentence."""
    if score.get("value") is None:
        return (
            f"The run has predicted {format_count(predictions.num)} of the {NAMES[split]} split, which has no {name}."
        )
    low, high = format_score(score["low"]), format_score(score["high"])
    span = f", with 95 % confidence between {low} and {high}" if score["low"] else ""
    what = "of the images have all labels right" if name == "exact_match" else "of the images are right"
    return f"{100 * score['value']:.1f} % {what}, on {format_count(predictions.num)} of the {NAMES[split]} split{span}."


def facts(run_data: RunData, split: str, predictions: Predictions, name: str, score: dict[str, Any]) -> Iterator[Fact]:
    """Yield the numbers that are shown large."""
    scores = run_data.document.get(split, {})
    for key, words in ((name, name.replace("_", " ")), ("f1_macro", "macro F1"), ("roc_auc", "ROC AUC"),
                       ("calibration_error", "calibration error")):  # fmt: skip
        found = scores.get(key)
        if found and found["value"] is not None:
            span = f"{format_score(found['low'])} to {format_score(found['high'])}" if found["low"] is not None else ""
            yield Fact(words, format_score(found["value"]), span)
    yield Fact("images", f"{predictions.num:,}", f"{NAMES[split]} split, {len(predictions.labels):,} classes")


def doubts(
    run_data: RunData, split: str, predictions: Predictions, score: dict[str, Any]
) -> Iterator[tuple[str, Tone]]:
    """Yield what speaks against relying on the score, in sentences."""
    for part, count in run_data.document.get("partial", {}).items():
        yield f"Partial scores: {partial_line(part, count)}.", "warning"
    if split != "test":
        yield (
            "There are no test predictions: the score is that of the split that chose the epoch, so it flatters.",
            "bad",
        )
    if predictions.num < _FEW:
        yield (
            f"With {format_count(predictions.num)} a single one changes the score by "
            f"{100 / predictions.num:.1f} points.",
            "warning",
        )
    if score.get("low") is None:
        yield "The score has no interval (bootstrap=0), so nobody can say how much of it is chance.", "warning"
    elif score["high"] - score["low"] > _WIDE:
        yield (
            f"The interval is {100 * (score['high'] - score['low']):.0f} points wide: more test images would help.",
            "warning",
        )
    share = majority(run_data, predictions)
    if share is not None and score.get("low") is not None and score["low"] <= share:
        yield f"It is not clearly better than always naming the commonest class, which is right in {share:.3f}.", "bad"
    leaks = (run_data.record.get("audit") or {}).get("counts", {}).get("leakage", 0)
    if leaks:
        yield (
            f"An audit found {format_count(leaks)} of val and test in an earlier split too: the score flatters.",
            "bad",
        )
    rows = run_data.document.get("per_class", {}).get(split, [])
    weak = [row for row in rows if row.get("recall") is not None and row["recall"] < WEAK]
    if weak:
        worst = min(weak, key=lambda row: float(row["recall"]))
        more = f"; {format_count(len(weak) - 1, 'more class', 'more classes')} below half" if len(weak) > 1 else ""
        yield (
            f"Of {worst['label']}, {100 * worst['recall']:.0f} % of {format_count(worst['support'])} are "
            f"recognised{more}.",
            "warning",
        )


def reliable(run_data: RunData, split: str, predictions: Predictions, score: dict[str, Any]) -> str:
    """Return why the score can be relied on, where nothing speaks against it."""
    width = 100 * (score["high"] - score["low"])
    rows = [row for row in run_data.document.get("per_class", {}).get(split, []) if row.get("recall") is not None]
    worst = min(rows, key=lambda row: float(row["recall"])) if rows else None
    weakest = "" if worst is None else (
        f", and of the weakest class, {worst['label']}, {100 * worst['recall']:.0f} % are recognised"
    )  # fmt: skip
    return (
        f"Nothing here speaks against relying on it for images like these: {format_count(predictions.num)}, an "
        f"interval {width:.1f} points wide{weakest}."
    )


def baselines(run_data: RunData, predictions: Predictions, name: str) -> Iterator[tuple[str | float | int | None, ...]]:
    """Yield what the score is to be seen beside: always the commonest class, and what else is known."""
    commonest = "the commonest class, always; no image needs to be looked at"
    neighbours = run_data.record.get("baselines", {}).get("val", {}).get("nearest_neighbours")
    before = "nearest training images by features before any training, on validation"
    probe = "head alone, backbone as it came: best epoch of the first phase, on validation"
    rows = (
        ("majority-class baseline", majority(run_data, predictions), predictions.num, commonest),
        ("k-NN baseline", neighbours, None, before),
        ("linear probe", probe_score(run_data), None, probe),
    )
    yield from (row for row in rows if row[1] is not None)
    if run_data.baseline is not None:
        yield beside(run_data.baseline, predictions, name)


def majority(run_data: RunData, predictions: Predictions) -> float | None:
    """Return the share of images of the commonest class of the training split; None for several labels per image."""
    if predictions.multilabel or not predictions.num:
        return None
    from finetune.data.table import load_saved_table

    counts = np.bincount(predictions.targets, minlength=len(predictions.labels))
    commonest = int(counts.argmax())
    if run_data.run.table_file.is_file():
        frame = load_saved_table(run_data.run.table_file)[0]
        train = frame.loc[frame["split"] == "train", "label"].value_counts()
        if len(train) and train.index[0] in predictions.labels:
            commonest = predictions.labels.index(str(train.index[0]))
    return float(counts[commonest] / predictions.num)


def probe_score(run_data: RunData) -> float | None:
    """Return the best validation accuracy of a first phase that trained the head alone, where more came after it."""
    phases = list(dict.fromkeys(row.get("phase") for row in run_data.history if row.get("phase")))
    trained = run_data.config.get("strategy", {}).get("phases", [])
    if len(phases) < 2 or not trained or trained[0].get("train") != "head":
        return None
    found = [float(row["val/accuracy"]) for row in run_data.history
             if row.get("phase") == phases[0] and "val/accuracy" in row]  # fmt: skip
    return max(found) if found else None


def beside(other: tuple[str, Predictions], predictions: Predictions, name: str) -> tuple[str | float | int | None, ...]:
    """Return another run's score on the same images, and by how much this one differs."""
    label, theirs = other
    try:
        first, second = align_predictions(theirs, predictions, (label, "this run"), common=False)
    except (OtherImagesError, DataError) as error:
        return (label, None, theirs.num, f"not comparable: {error}")
    change = compare_pair(first, second).metrics[name]
    note = f"this run: {change.value:+.4f}, 95 % interval {change.low:+.4f} to {change.high:+.4f}"
    return (label, change.first, first.num, note)
