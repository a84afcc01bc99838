"""Operating points: which threshold to use for a stated cost, a minimum precision or a minimum recall."""

from dataclasses import dataclass

import numpy as np

from finetune.errors import ConfigError, nearest
from finetune.evaluation.curves.threshold_choice import ThresholdDecision, decide_at_rank
from finetune.evaluation.curves.threshold_counts import ThresholdCounts

AIMS = "operating.min_precision, operating.min_recall, or operating.cost_fp with operating.cost_fn"


@dataclass(frozen=True)
class OperatingChoice:
    """What a threshold is to achieve, as a user types it; with no aim it is the highest F1.

    Attributes:
        label: The class that is flagged; None for the second of two classes, or for each of several in turn.
        min_precision: Of the flagged images, at least this share is to be of the class.
        min_recall: Of the images of the class, at least this share is to be flagged.
        cost_fp: What a false alarm costs.
        cost_fn: What a miss costs.

    Raises:
        ConfigError: There are several aims, half of one, or one that means nothing.
    """

    label: str | None = None
    min_precision: float | None = None
    min_recall: float | None = None
    cost_fp: float | None = None
    cost_fn: float | None = None

    def __post_init__(self) -> None:
        """Check that there is at most one aim, and that it can be meant."""
        if (self.cost_fp is None) != (self.cost_fn is None):
            missing = "operating.cost_fp" if self.cost_fp is None else "operating.cost_fn"
            raise ConfigError(
                f"A cost needs both sides, and {missing} is not set. "
                "Set both, such as operating.cost_fp=1 operating.cost_fn=5."
            )
        aims = [aim for aim in (self.min_precision, self.min_recall, self.cost_fp) if aim is not None]
        if len(aims) > 1:
            raise ConfigError(f"A threshold has one aim, and {len(aims)} are set. Set one of {AIMS}.")
        for name in ("min_precision", "min_recall"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"operating.{name}={value} is not above 0 and at most 1. Say operating.{name}=0.9.")
        costs = (self.cost_fp or 0.0, self.cost_fn or 0.0)
        if self.cost_fp is not None and (min(costs) < 0 or max(costs) == 0 or not np.isfinite(costs).all()):
            raise ConfigError(
                f"operating.cost_fp={self.cost_fp} and operating.cost_fn={self.cost_fn} cannot be weighed. "
                "Both must be finite and at least 0, and one above it: operating.cost_fp=1 operating.cost_fn=5."
            )

    @property
    def aim(self) -> str:
        """The aim in words."""
        if self.min_precision is not None:
            return f"the highest recall with a precision of at least {self.min_precision:g}"
        if self.min_recall is not None:
            return f"the highest precision with a recall of at least {self.min_recall:g}"
        if self.cost_fp is not None:
            return f"the lowest cost at {self.cost_fp:g} for a false alarm and {self.cost_fn:g} for a miss"
        return "the highest F1"

    def number(self, labels: tuple[str, ...]) -> int | None:
        """Return the number of the label; None where none is named.

        Raises:
            ConfigError: There is no such label.
        """
        if self.label is None:
            return None
        if self.label not in labels:
            known = ", ".join(labels[:10]) + (" …" if len(labels) > 10 else "")
            raise ConfigError(
                f"operating.label={self.label} is not a label of this run (there is: {known})."
                f"{nearest(self.label, labels)}"
            )
        return labels.index(self.label)

    def cost(self, decision: ThresholdDecision) -> float:
        """Return what the errors of a decision cost together; their number where no cost is stated."""
        if self.cost_fp is None or self.cost_fn is None:
            return float(decision.alarms + decision.misses)
        return self.cost_fp * decision.alarms + self.cost_fn * decision.misses


def operating_point(ranked: ThresholdCounts, choice: OperatingChoice) -> ThresholdDecision | None:
    """Return the best threshold for the aim; of equals the highest. None where no threshold reaches it."""
    if not ranked.positives:
        return None
    hits, alarms = np.append(0, ranked.hits), np.append(0, ranked.alarms)
    allowed, value = _judge(hits, alarms, ranked, choice)
    if not allowed.any():
        return None
    best = np.lexsort((np.arange(len(hits)), -np.where(allowed, value, -np.inf)))[0]
    return decide_at_rank(ranked, int(best) - 1)


def _judge(
    hits: np.ndarray, alarms: np.ndarray, ranked: ThresholdCounts, choice: OperatingChoice
) -> tuple[np.ndarray, np.ndarray]:
    """Return which thresholds reach the aim, and how good each is."""
    flagged = hits + alarms
    precision = np.where(flagged > 0, hits / np.maximum(flagged, 1), -1.0)
    recall = hits / ranked.positives
    if choice.min_precision is not None:
        # equal recall: the more precise one
        return (precision >= choice.min_precision) & (hits > 0), hits + precision / 2
    if choice.min_recall is not None:
        return recall >= choice.min_recall, precision
    if choice.cost_fp is not None and choice.cost_fn is not None:
        return flagged >= 0, -(choice.cost_fp * alarms + choice.cost_fn * (ranked.positives - hits))
    return hits > 0, 2 * hits / (ranked.positives + flagged)
