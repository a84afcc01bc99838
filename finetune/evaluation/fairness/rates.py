"""Rates per group (equal opportunity, false positives, demographic parity), by which fairness is measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from finetune.evaluation.bootstrap import binomial_interval
from finetune.evaluation.fairness.gaps import Gap, GroupValue, find_gap
from finetune.evaluation.metrics import indicators
from finetune.evaluation.predictions import Predictions

_Counts = dict[str, np.ndarray]


@dataclass(frozen=True)
class ClassGaps:
    """How differently groups are treated in one class; None where fewer than two groups can be judged.

    Attributes:
        label: The class.
        equal_opportunity: Gap in recall: of the images of the class, the share that is recognised.
        false_positives: Gap in the share of the other images that is taken for the class.
        demographic_parity: Gap in the share of all images that is predicted as the class.
    """

    label: str
    equal_opportunity: Gap | None
    false_positives: Gap | None
    demographic_parity: Gap | None

    @property
    def equalised_odds(self) -> Gap | None:
        """The larger of the gaps in recall and in false positives."""
        gaps = [gap for gap in (self.equal_opportunity, self.false_positives) if gap is not None]
        return max(gaps, key=lambda gap: gap.difference.value) if len(gaps) == 2 else None


def class_gaps(parts: Mapping[str, Predictions], min_images: int) -> list[ClassGaps]:
    """Return the gaps of each class between groups; a rate of fewer than `min_images` images is left out.

    Intervals of rates are exact binomial ones.

    Source: Hardt et al. 2016, Equality of opportunity in supervised learning, sections 2 and 3; Dwork et al. 2012,
    Fairness through awareness, section 3 (statistical parity). A class of several is held against the rest.
    """
    labels = next(iter(parts.values())).labels if parts else ()
    counts = {name: count_decisions(part) for name, part in parts.items()}
    rates = {
        kind: {name: _measured(found[kind], found[of], min_images) for name, found in counts.items()}
        for kind, of in (("hits", "support"), ("false", "others"), ("called", "images"))
    }
    return [
        ClassGaps(
            label, *(find_gap({name: found[k] for name, found in rates[kind].items()}) for kind in rates)
        )
        for k, label in enumerate(labels)
    ]  # fmt: skip


def count_decisions(part: Predictions) -> _Counts:
    """Return by name numbers of images (K,): of the class, of others, recognised, taken for it wrongly, called so."""
    truth = indicators(part)
    decided = part.predicted
    called = decided if part.multilabel else np.eye(len(part.labels), dtype=np.int64)[decided]
    hits, support, calls = (truth * called).sum(axis=0), truth.sum(axis=0), called.sum(axis=0)
    everything = np.full(len(part.labels), part.num)
    return {
        "hits": hits, "support": support, "false": calls - hits, "others": everything - support,
        "called": calls, "images": everything,
    }  # fmt: skip


def _measured(hits: np.ndarray, nums: np.ndarray, min_images: int) -> list[GroupValue]:
    low, high = binomial_interval(hits, nums)
    enough = nums >= max(1, min_images)
    return [
        GroupValue(float(h / n), float(a), float(b)) if fine else GroupValue(math.nan)
        for h, n, a, b, fine in zip(hits, nums, low, high, enough, strict=True)
    ]
