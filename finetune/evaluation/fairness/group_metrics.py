"""Metrics per group: every score of each with its interval, the gaps, and the weakest group."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from finetune.config.settings.run_groups import GroupSettings
from finetune.evaluation.bootstrap import bootstrap
from finetune.evaluation.fairness.gaps import Gap, GroupValue, find_gap
from finetune.evaluation.fairness.partition import Partition, partitions
from finetune.evaluation.fairness.permutation_test import correctness, permutation_p_value
from finetune.evaluation.fairness.rates import class_gaps
from finetune.evaluation.metrics import compute_metrics
from finetune.evaluation.predictions import Predictions
from finetune.runtime.format import known

_Document = dict[str, Any]
# a column of more groups is summarised: those that do worst and best, without gaps, which grow with their number
MOST, ENDS = 20, 5
JUDGED_BY = "accuracy"
FAIRNESS = ("equal_opportunity", "demographic_parity", "equalised_odds")


def groups_document(
    splits: Mapping[str, Predictions], settings: GroupSettings, *, resamples: int = 1000, seed: int = 0
) -> _Document:
    """Return by split and column what is known of its groups, as plain JSON; nothing where there are no columns.

    A group of fewer images than the least is scored but not judged: it is in no gap and never the weakest. A column of
    more than 20 groups keeps the judged ones that do worst and best, five of each.
    """
    return {
        split: {
            partition.column: _describe(predictions, partition, settings.min_images, resamples, seed)
            for partition in partitions(predictions, settings)
        }
        for split, predictions in splits.items()
    }


def _describe(predictions: Predictions, partition: Partition, least: int, resamples: int, seed: int) -> _Document:
    """Return the groups of a column, their gaps, the weakest, and how likely chance spreads them so."""
    right = correctness(predictions)
    judged = sorted((name for name, rows in partition.groups.items() if len(rows) >= least),
                    key=lambda name: (right[partition.groups[name]].mean(), name))  # fmt: skip
    whole = len(partition.groups) <= MOST
    shown = list(partition.groups) if whole else list(dict.fromkeys([*judged[:ENDS], *judged[-ENDS:]]))
    parts = {name: predictions.take(partition.groups[name]) for name in shown}
    scores = {name: _measure(part, resamples, (seed, place)) for place, (name, part) in enumerate(parts.items())}
    compared = {name: part for name, part in parts.items() if name in judged} if whole else {}
    return {
        "num_groups": len(partition.groups),
        "num_small": len(partition.groups) - len(judged),
        "min_images": least,
        "weakest": judged[0] if judged else None,
        "chance": _chance(right, [partition.groups[name] for name in judged], resamples, seed),
        "groups": {
            name: {"n": part.num, "judged": name in judged, **{key: _measured(v) for key, v in scores[name].items()}}
            for name, part in parts.items()
        },
        "gaps": _score_gaps({name: scores[name] for name in compared}),
        "classes": _class_gaps(compared, least),
    }


def _measure(part: Predictions, resamples: int, seeds: tuple[int, int]) -> dict[str, GroupValue]:
    """Return every score of a group with its interval; the resamples of two groups are independent."""
    intervals = bootstrap(part, resamples, int(np.random.SeedSequence(seeds).generate_state(1)[0]))
    return {name: GroupValue(value, *intervals[name]) for name, value in compute_metrics(part).items()}


def weakest_group(columns: Mapping[str, _Document]) -> tuple[str, str, _Document] | None:
    """Return column, name and scores of the judged group with the lowest accuracy; None where none is judged.

    A column whose judged groups are one and the same says nothing and is passed over.
    """
    found = [
        (column, part["weakest"], part["groups"][part["weakest"]])
        for column, part in columns.items()
        if part["weakest"] is not None and part["num_groups"] - part["num_small"] > 1
    ]
    return min(found, key=lambda each: float(each[2][JUDGED_BY]["value"]), default=None)


def weakest_line(columns: Mapping[str, _Document]) -> str:
    """Say in a line which group is served worst; nothing where none is judged."""
    found = weakest_group(columns)
    if found is None:
        return ""
    column, name, scores = found
    return f"group {column}={name}: accuracy {scores[JUDGED_BY]['value']:.4f} on {scores['n']:,} images"


def _chance(right: np.ndarray, judged: list[np.ndarray], draws: int, seed: int) -> float | None:
    if len(judged) < 2 or draws < 1:
        return None
    numbers = np.repeat(np.arange(len(judged)), [len(rows) for rows in judged])
    return permutation_p_value(right[np.concatenate(judged)], numbers, draws=draws, seed=seed)


def _score_gaps(scores: Mapping[str, Mapping[str, GroupValue]]) -> _Document:
    names = next(iter(scores.values()), {})
    gaps = {key: find_gap({name: found[key] for name, found in scores.items()}) for key in names}
    return {key: _gap(gap) for key, gap in gaps.items() if gap is not None}


def _class_gaps(parts: Mapping[str, Predictions], least: int) -> _Document:
    """The gaps of each class; a class of which nothing can be judged is left out."""
    found = {
        gaps.label: {name: _gap(gap) for name in FAIRNESS if (gap := getattr(gaps, name)) is not None}
        for gaps in (class_gaps(parts, least) if len(parts) > 1 else ())
    }
    return {label: gaps for label, gaps in found.items() if gaps}


def _gap(gap: Gap) -> _Document:
    return {
        "lowest": gap.lowest, "highest": gap.highest, "low_value": gap.low_value, "high_value": gap.high_value,
        "difference": _measured(gap.difference), "ratio": _measured(gap.ratio),
    }  # fmt: skip


def _measured(found: GroupValue) -> _Document:
    return {name: known(value) for name, value in vars(found).items()}
