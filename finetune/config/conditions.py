"""The grammar of conditions on values by name, joined by `and` or commas: of filters and of gates.

Nothing that is typed is ever run as code.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from finetune.errors import ConfigError, nearest

ConditionValue = str | int | float | bool | None
ORDERED: dict[str, Callable[[float | str, float | str], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
OPERATORS = ("=", "!=", *ORDERED, "~")
_NOTHING = "null"
_CONDITION = re.compile(
    r"""\s*(?P<key>[^\s=!<>~,"']+)\s*(?P<operator>[=!<>~]+)\s*(?:(?P<quote>["'])(?P<text>.*?)(?P=quote)|(?P<word>[^\s,"']+))"""
)
JOINT = re.compile(r"\s*(?:,|\band\b)\s*|\s*$", re.IGNORECASE)
GRAMMAR = "Type KEY=VALUE, or != < <= > >= ~ (contains) in place of =, joined by 'and'"


@dataclass(frozen=True)
class ValueCondition:
    """A comparison of a value with what was typed.

    Attributes:
        key: The value's name.
        operator: One of OPERATORS.
        operand: As typed; null stands for a value that is not there.
    """

    key: str
    operator: str
    operand: str

    def holds(self, value: ConditionValue) -> bool:
        """Return whether a value fulfils the condition; one that is not there fulfils none but `=null`.

        Raises:
            ConfigError: A number is to be above or below a word.
        """
        if self.operand == _NOTHING:
            return (value is None) == (self.operator == "=")
        if value is None:
            return False
        if self.operator == "~":
            return self.operand.lower() in text(value).lower()
        left, right = number(value), number(self.operand)
        if self.operator in ORDERED:
            return self._is_ordered(value, left, right)
        same = left == right if left is not None and right is not None else text(value) == self.operand
        return same == (self.operator == "=")

    def _is_ordered(self, value: ConditionValue, left: float | None, right: float | None) -> bool:
        if left is not None and right is not None:
            return ORDERED[self.operator](left, right)
        if left is not None:
            raise ConfigError(
                f"{self.key} is a number ({text(value)}), which is not {self.operator} '{self.operand}'. Compare it "
                f"with a number: {self.key}{self.operator}0.9"
            )
        return ORDERED[self.operator](text(value), self.operand)


def number(value: ConditionValue) -> float | None:
    """Return a value as a number, or None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return None


def text(value: ConditionValue) -> str:
    """Return a value as it is typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_conditions(typed: str) -> list[ValueCondition]:
    """Return the conditions of a filter.

    Raises:
        ConfigError: It cannot be read.
    """
    found: list[ValueCondition] = []
    place = 0
    while place < len(typed):
        match = _CONDITION.match(typed, place)
        joint = JOINT.match(typed, match.end()) if match else None
        if match is None or joint is None:
            raise unreadable(typed, typed[match.end() if match else place :].strip())
        found.append(condition_of(match))
        place = joint.end()
        if place == len(typed) and joint.group().strip():
            raise unreadable(typed, joint.group().strip())
    if not found:
        raise ConfigError(f"filter= is empty. {GRAMMAR}, or leave it out.")
    return found


def condition_of(match: "re.Match[str]") -> ValueCondition:
    """Return a condition that was found.

    Raises:
        ConfigError: Its operator is none, or nothing can be above or below nothing.
    """
    key, sign = match["key"], match["operator"]
    operand = match["text"] if match["quote"] else match["word"]
    if sign not in OPERATORS:
        raise ConfigError(f"filter: '{sign}' compares nothing. {GRAMMAR}.{nearest(sign, OPERATORS)}")
    if operand == _NOTHING and sign not in ("=", "!="):
        raise ConfigError(f"filter: {key}{sign}null asks nothing. Type {key}=null or {key}!=null.")
    return ValueCondition(key, sign, operand)


def unreadable(typed: str, rest: str) -> ConfigError:
    """Return the error about a filter that cannot be read from some place on."""
    hint = " Several filters joined by 'or' are several commands." if re.match(r"or\b", rest, re.IGNORECASE) else ""
    return ConfigError(f"filter={typed} cannot be read at '{rest}'. {GRAMMAR}.{hint}")
