"""The gate: a condition that a candidate has to meet against its baseline, for scripts that decide by exit code."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from finetune.config.conditions import number, read_conditions
from finetune.errors import ConfigError, nearest
from finetune.evaluation.compare.paired import LOWER_IS_BETTER, Difference

_RULES = ("worse", "proven")
_SIGNS = (">=", "<=")


@dataclass(frozen=True)
class GateCondition:
    """A bound on the difference of a metric, candidate minus incumbent.

    Attributes:
        metric: Its name.
        sign: >= where the difference may not fall below the bound, <= where it may not exceed it.
        bound: Such as -0.005.
    """

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        """Write it as it is typed."""
        return f"{self.metric}{self.sign}{self.bound:g}"


@dataclass(frozen=True)
class Verdict:
    """Whether a condition is met, and why, in words."""

    condition: GateCondition
    passed: bool
    reason: str


def read_gate(text: str, rule: str) -> tuple[GateCondition, ...]:
    """Return the conditions of a text such as accuracy>=-0.005,loss<=0.01.

    Raises:
        ConfigError: It cannot be read, a bound has the wrong side for its metric, or the rule is not known.
    """
    if rule not in _RULES:
        raise ConfigError(f"compare.gate_rule={rule} is not one of {', '.join(_RULES)}.{nearest(rule, _RULES)}")
    try:
        conditions = read_conditions(text)
    except ConfigError as error:
        raise no_condition(text, text) from error
    found = []
    for each in conditions:
        typed, bound = f"{each.key}{each.operator}{each.operand}", number(each.operand)
        if each.operator not in _SIGNS or bound is None or not math.isfinite(bound):
            raise no_condition(text, typed)
        wanted = "<=" if each.key in LOWER_IS_BETTER else ">="
        if each.operator != wanted:
            better = "lower" if wanted == "<=" else "higher"
            raise ConfigError(
                f"compare.gate='{typed}': {better} {each.key} is better, so its bound is {each.key}{wanted}…."
            )
        found.append(GateCondition(each.key, each.operator, bound))
    return tuple(found)


def no_condition(text: str, part: str) -> ConfigError:
    """Return the error about a gate of which some part cannot be meant."""
    return ConfigError(
        f"compare.gate='{text}': '{part}' is no condition. Write a metric, >= or <=, and a bound on its difference: "
        "accuracy>=-0.005, several joined by commas."
    )


def check_gate(condition: GateCondition, differences: Mapping[str, Difference], rule: str) -> Verdict:
    """Return whether a candidate meets a condition.

    worse: it fails where the whole interval of the difference is beyond the bound, so where the data show that it is
    worse than allowed. proven: it passes only where the whole interval is within the bound (non-inferiority).

    Raises:
        ConfigError: There is no such metric, or its interval is not known.
    """
    found = differences.get(condition.metric)
    if found is None:
        raise ConfigError(
            f"compare.gate: there is no metric {condition.metric}.{nearest(condition.metric, differences)} There is: "
            f"{', '.join(differences)}."
        )
    if math.isnan(found.low):
        raise ConfigError(f"compare.gate={condition}: {condition.metric} has no interval. Set bootstrap=1000.")
    side = 1 if condition.sign == ">=" else -1
    best, least = (found.high, found.low) if side > 0 else (found.low, found.high)
    end = best if rule == "worse" else least
    passed = side * (end - condition.bound) >= 0
    told = f"{condition.metric} changes by {found.value:+.4f} (95 % interval {found.low:+.4f} to {found.high:+.4f})"
    if rule == "worse":
        why = "not shown to be worse than allowed" if passed else "shown to be worse than allowed"
    else:
        why = "shown to be within the bound" if passed else "not shown to be within the bound"
    return Verdict(condition, passed, f"{told}: {why}")
