"""Fairness gaps: the largest difference and the ratio between groups, and how sure both are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from finetune.evaluation.bootstrap import UNKNOWN, Interval


@dataclass(frozen=True)
class GroupValue:
    """A value of a group with its interval, whose ends are NaN where nothing is known of them."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Gap:
    """The two groups that are furthest apart.

    Attributes:
        lowest: The group with the lowest value.
        highest: The one with the highest.
        low_value: Of the lowest.
        high_value: Of the highest.
        difference: Highest minus lowest; the interval is that of these two groups, and may hold negative numbers.
        ratio: Lowest to highest, 1 where they are equal; NaN where both are 0.
    """

    lowest: str
    highest: str
    low_value: float
    high_value: float
    difference: GroupValue
    ratio: GroupValue


def find_gap(values: Mapping[str, GroupValue]) -> Gap | None:
    """Return the gap between groups; None where fewer than two have a defined value."""
    defined = {name: found for name, found in values.items() if not math.isnan(found.value)}
    if len(defined) < 2:
        return None
    lowest = min(defined, key=lambda name: defined[name].value)
    highest = max(reversed(list(defined)), key=lambda name: defined[name].value)
    low, high = defined[lowest], defined[highest]
    return Gap(lowest, highest, low.value, high.value, difference_of(high, low), ratio_of(low, high))


def difference_of(first: GroupValue, second: GroupValue) -> GroupValue:
    """Return first minus second with the interval that follows from those of both, which are of different images.

    Source: Newcombe 1998, Interval estimation for the difference between independent proportions, method 10; Zou and
    Donner 2008, Construction of confidence limits about effect measures, section 2 (MOVER, for any values).
    """
    value = first.value - second.value
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    return GroupValue(value, *_both(low, high))


def ratio_of(first: GroupValue, second: GroupValue) -> GroupValue:
    """Return first over second, of values that are not negative, with the interval that follows from those of both.

    The upper end is NaN, and the lower with it, where the second may be 0.

    Source: Donner and Zou 2012, Closed-form confidence intervals for functions of the normal mean and standard
    deviation, section 2 (MOVER-R).
    """
    if second.value == 0:
        return GroupValue(math.nan)
    product, value = first.value * second.value, first.value / second.value
    least, most = _mirrored(second.low, second.value), _mirrored(second.high, second.value)
    if not (least > 0 and most > 0):
        return GroupValue(value)
    low = (product - math.sqrt(max(0.0, product**2 - _mirrored(first.low, first.value) * most))) / most
    high = (product + math.sqrt(max(0.0, product**2 - _mirrored(first.high, first.value) * least))) / least
    return GroupValue(value, *_both(low, high))


def _mirrored(end: float, value: float) -> float:
    return end * (2 * value - end)


def _both(low: float, high: float) -> Interval:
    return UNKNOWN if math.isnan(low) or math.isnan(high) else (low, high)
