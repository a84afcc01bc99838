"""Fairness: whether the model serves all groups alike, as far as their sizes let that be judged."""

from typing import Any

from finetune.evaluation.fairness.group_metrics import ENDS, FAIRNESS, JUDGED_BY, groups_document
from finetune.evaluation.fairness.partition import EVERY_GROUP
from finetune.evaluation.fairness.permutation_test import correctness
from finetune.evaluation.predictions import Predictions
from finetune.report.figures.groups_figure import group_figure
from finetune.report.figures.intervals_figure import IntervalPoint
from finetune.report.html.blocks import Block, Cell, Column, Section, Table, Text
from finetune.report.run_data import RunData
from finetune.report.sections.section_split import NAMES, about_split
from finetune.runtime.format import format_count, format_interval, format_score, known

_Document = dict[str, Any]
DOUBT = 0.05
_CLASSES = 30
_WORDS = {
    "equal_opportunity": ("equal opportunity", "in recall: of the class's images, the share that is recognised"),
    "demographic_parity": ("demographic parity", "in the share of all images that is predicted as the class"),
    "equalised_odds": ("equalised odds", "the larger of the gaps in recall and in false positives"),
}
SCORE_NAMES = {"accuracy_top5": "top-5 accuracy", "roc_auc": "ROC AUC", "f1_macro": "F1 (macro)"}


@about_split
def fairness_section(run_data: RunData, split: str, predictions: Predictions) -> Section | None:
    """Tell of each group column and intersection: scores, gaps, and whether chance explains them."""
    if not len(predictions.groups.columns):
        return None
    columns = run_data.document.get("groups", {}).get(split)
    if columns is None:  # a run that is older than this section
        columns = groups_document({split: predictions}, EVERY_GROUP, resamples=200)[split]
    if not columns:
        return None
    whole = float(correctness(predictions).mean())
    blocks: list[Block] = []
    for place, (column, part) in enumerate(columns.items()):
        blocks += [verdict_of(column, part), *column_blocks(column, part, whole, place)]
    lead = (
        f"How well groups of {NAMES[split]} images are served. A group of fewer than "
        f"{next(iter(columns.values()))['min_images']} images is shown, but not judged."
    )
    return Section("groups", "Fairness", tuple(blocks), lead)


def verdict_of(column: str, part: _Document) -> Text:
    """Say in words whether the groups of a column are served alike."""
    judged = part["num_groups"] - part["num_small"]
    if judged < 2:
        few = f"{part['num_small']:,} of {format_count(part['num_groups'], 'group')}"
        reason = f"{few} too small to judge" if part["num_small"] else "all images are of one group"
        return Text(f"{column}: nothing can be compared, {reason}.", "plain")
    odds = [(label, gaps["equalised_odds"]) for label, gaps in part["classes"].items() if "equalised_odds" in gaps]
    unequal = max(odds, key=lambda each: float(each[1]["difference"]["value"]), default=None)
    weakest = part["groups"][part["weakest"]]
    score = weakest[JUDGED_BY]
    certain = format_interval(score["low"], score["high"])
    words = (
        f"{column}: the weakest group is {part['weakest']}, accuracy {format_score(score['value'])} on "
        f"{format_count(weakest['n'])}{f' (95 % interval {certain})' if certain else ''}. "
    )
    told = words + _chance_words(part["chance"], judged)
    if unequal is None:
        return Text(told, _tone(part["chance"]))
    label, gap = unequal
    told += (
        f" By class, {label} is treated most unequally: its recall or its false positives differ by "
        f"{format_score(gap['difference']['value'])} between {gap['lowest']} and {gap['highest']} (95 % interval "
        f"{format_interval(gap['difference']['low'], gap['difference']['high']) or 'unknown'})."
    )
    return Text(told, "warning" if (gap["difference"]["low"] or 0) > 0 else _tone(part["chance"]))


def _chance_words(chance: float | None, judged: int) -> str:
    if chance is None:
        return "How much of that is chance was not measured (bootstrap=0)."
    found = (
        f"the accuracies of {judged} groups this far apart (p {'below 0.01' if chance < 0.01 else f'= {chance:.2f}'})"
    )
    if chance < DOUBT:
        return f"Chance alone rarely spreads {found}: expect the difference on new images too."
    return f"Chance alone may spread {found}: no difference is shown, and none is ruled out."


def _tone(chance: float | None) -> Any:
    return "warning" if chance is not None and chance < DOUBT else "plain"


def column_blocks(column: str, part: _Document, whole: float, place: int) -> list[Block]:
    """Return figure and tables of a column; the weakest groups first, those too small to judge last."""
    groups: _Document = part["groups"]
    order = sorted(groups, key=lambda name: (not groups[name]["judged"], groups[name][JUDGED_BY]["value"], name))
    blocks: list[Block] = []
    if 0 < len(order) < part["num_groups"]:
        words = (
            f"{column} has {part['num_groups']:,} groups, {part['num_small']:,} of them too small to judge. Of the "
            f"others the {ENDS} with the lowest and the {ENDS} with the highest accuracy are shown; gaps are left out, "
            "since they grow with the number of groups."
        )
        blocks.append(Text(words))
    if not order:
        return blocks
    blocks.append(group_figure(column, [_point(name, groups[name]) for name in order], whole, name=f"groups-{place}"))
    blocks.append(_score_table(column, {name: groups[name] for name in order}))
    if part["gaps"]:
        blocks.append(_gap_table(column, part["gaps"]))
    if part["classes"]:
        blocks.append(_class_table(column, part["classes"]))
    return blocks


def _point(name: str, group: _Document) -> IntervalPoint:
    score = group[JUDGED_BY]
    return IntervalPoint(name, group["n"], score["value"], score["low"], score["high"], group["judged"])


def _score_table(column: str, groups: _Document) -> Table:
    names = [key for key in next(iter(groups.values())) if key not in ("n", "judged")]
    columns = [Column(column), Column("images"), Column("judged", hint="whether there are images enough")]
    for name in names:
        columns += [Column(_word(name), digits=3), Column(f"{_word(name)}, 95 %", hint="its interval")]
    rows: list[tuple[Cell, ...]] = []
    for name, group in groups.items():
        cells: list[Cell] = [name, group["n"], "yes" if group["judged"] else "too small"]
        for key in names:
            cells += _with_interval(group[key])
        rows.append(tuple(cells))
    caption = "Macro averages are of the classes that the group has images of."
    return Table(f"Scores by {column}", tuple(columns), tuple(rows), caption)


def _gap_table(column: str, gaps: _Document) -> Table:
    names = ("score", "lowest group", "value", "highest group", "value ", "difference", "difference, 95 %")
    columns = [Column(n, digits=None if "group" in n or n == "score" or "%" in n else 3) for n in names]
    columns += [Column("ratio", digits=3, hint="lowest to highest; 1 where they are equal"), Column("ratio, 95 %")]
    rows = tuple(
        (_word(key), gap["lowest"], known(gap["low_value"]), gap["highest"], known(gap["high_value"]),
         *_with_interval(gap["difference"]), *_with_interval(gap["ratio"]))
        for key, gap in gaps.items()
    )  # fmt: skip
    caption = (
        "Of the two groups furthest apart, among those that can be judged. They were picked for being so, and the more "
        "groups there are, the further apart chance puts them: the sentence above takes account of that."
    )
    return Table(f"Gaps between groups of {column}", tuple(columns), rows, caption)


def _with_interval(score: _Document) -> tuple[Cell, Cell]:
    return known(score["value"]), format_interval(score["low"], score["high"])


def _class_table(column: str, classes: _Document) -> Table:
    def largest(label: str) -> float:
        return max(float(gap["difference"]["value"]) for gap in classes[label].values())

    columns = [Column("class")]
    for word, hint in _WORDS.values():
        columns += [
            Column(word, digits=3, hint=f"largest difference between groups {hint}"), Column(f"{word}, 95 %"),
            Column(f"{word}: from, to", hint="the lowest and the highest group"),
        ]  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for label in sorted(classes, key=lambda name: (-largest(name), name))[:_CLASSES]:
        cells: list[Cell] = [label]
        for key in FAIRNESS:
            gap = classes[label].get(key)
            ends = gap and (*_with_interval(gap["difference"]), f"{gap['lowest']}, {gap['highest']}")
            cells += ends or [None] * 3
        rows.append(tuple(cells))
    left = f" The {_CLASSES} classes with the largest gaps of {len(classes):,}." if len(classes) > _CLASSES else ""
    caption = f"Each class against the rest; a dash where fewer than two groups have images enough.{left}"
    return Table(f"Fairness of each class by {column}, the largest gap first", tuple(columns), tuple(rows), caption)


def _word(name: str) -> str:
    return SCORE_NAMES.get(name, name.replace("_", " "))
