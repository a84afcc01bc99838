"""A search space: which settings vary, over which values, and under which conditions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from finetune.errors import ConfigError

SettingValue = str | int | float | bool | None
Kind = Literal["choice", "whole", "decimal"]


@dataclass(frozen=True)
class SpaceValue:
    """One of the values of a setting: what is recorded, and how it is typed on a command line."""

    value: SettingValue
    text: str


@dataclass(frozen=True)
class SpaceCondition:
    """A setting must have one of some values, as they are typed."""

    key: str
    texts: tuple[str, ...]

    def holds(self, values: Mapping[str, str]) -> bool:
        """Return whether it holds for the values so far, as they are typed; one that is not there is not right."""
        return values.get(self.key) in self.texts

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.texts)}"


@dataclass(frozen=True)
class Dimension:
    """A setting that varies.

    Attributes:
        typed: Its key as it is typed, with Hydra's + or ++ where it has one.
        kind: One of some choices, or a whole or decimal number from low to high.
        choices: Of a choice, in order; of a range of decimal numbers, its values.
        low: The least number.
        high: The largest number; it is one of the values.
        step: Between two numbers; None for a continuous interval.
        log: Whether small numbers are tried as finely, in proportion, as large ones.
        when: All must hold for the setting to be tried at all.
    """

    typed: str
    kind: Kind
    choices: tuple[SpaceValue, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    when: tuple[SpaceCondition, ...] = ()

    @property
    def key(self) -> str:
        """The setting's name."""
        return self.typed.lstrip("+")

    def text(self, value: SettingValue) -> str:
        """Return a value as it is typed on a command line."""
        if self.kind == "choice":
            return next(choice.text for choice in self.choices if same(choice.value, value))
        if self.choices:  # a range of decimal numbers: exactly as Hydra counts them
            value = min(self.choices, key=lambda choice: abs(float(choice.value or 0) - float(value or 0))).value
        return repr(value)

    def values(self) -> list[SettingValue]:
        """Return all values in order.

        Raises:
            ConfigError: It is continuous.
        """
        if self.choices:
            return [choice.value for choice in self.choices]
        if self.kind == "decimal":
            raise ConfigError(
                f"{self} has no end of values, and a grid tries all. Use choice(…) or range(…), or another sampler: "
                "sweep=random."
            )
        return list(range(int(self.low), int(self.high) + 1, int(self.step or 1)))

    def samples(self) -> list[SettingValue]:
        """Return the values by which the dimension is checked: all choices, or both ends."""
        if self.kind == "choice":
            return [choice.value for choice in self.choices]
        cast = int if self.kind == "whole" else float
        return list(dict.fromkeys([cast(self.low), cast(self.high)]))

    def __str__(self) -> str:
        return f"{self.key}={self.expression}"

    @property
    def expression(self) -> str:
        """The values in Hydra's grammar."""
        if self.kind == "choice":
            return f"choice({', '.join(choice.text for choice in self.choices)})"
        cast = int if self.kind == "whole" else float
        low, high = cast(self.low), cast(self.high)
        if self.step is not None and not (self.kind == "whole" and self.step == 1):
            text = f"range({low!r}, {high + self.step!r}, {cast(self.step)!r})"
        else:
            text = f"interval({low!r}, {high!r})"
            text = f"int({text})" if self.kind == "whole" else text
        return f"tag(log, {text})" if self.log else text


@dataclass(frozen=True)
class SearchSpace:
    """Settings that vary, each after those that its conditions name, and settings that a file fixes."""

    dimensions: tuple[Dimension, ...] = ()
    fixed: tuple[str, ...] = ()

    def active(self, dimension: Dimension, values: Mapping[str, SettingValue]) -> bool:
        """Return whether a setting is tried beside the values drawn so far."""
        texts = {other.key: other.text(values[other.key]) for other in self.dimensions if other.key in values}
        return all(condition.holds(texts) for condition in dimension.when)

    def overrides(self, values: Mapping[str, SettingValue]) -> list[str]:
        """Return a trial's values as overrides."""
        return [f"{each.typed}={each.text(values[each.key])}" for each in self.dimensions if each.key in values]

    def describe(self) -> dict[str, str]:
        """Return what each setting may be, in words that a later command line is compared with."""
        described = {
            each.key: f"{each.expression}{' when ' if each.when else ''}{' and '.join(map(str, each.when))}"
            for each in self.dimensions
        }
        return {**described, **{text.partition("=")[0].lstrip("+"): text.partition("=")[2] for text in self.fixed}}

    def grid(self) -> list[dict[str, SettingValue]]:
        """Return every combination once, the last setting changing fastest.

        Raises:
            ConfigError: A setting is continuous.
        """
        combinations: list[dict[str, SettingValue]] = [{}]
        for dimension in self.dimensions:
            values = dimension.values()
            combinations = [
                {**known, dimension.key: value} if tried else known
                for known in combinations
                for tried in [self.active(dimension, known)]
                for value in (values if tried else [None])
            ]
        return combinations


def same(one: SettingValue, other: SettingValue) -> bool:
    """Return whether two values are the same and of the same kind: 1 is neither 1.0 nor true."""
    return type(one) is type(other) and one == other


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield in words what is different between two descriptions of a space."""
    for key in {**before, **now}:
        if key not in now:
            yield f"{key} no longer varies (it was {before[key]})"
        elif key not in before:
            yield f"{key} is new ({now[key]})"
        elif before[key] != now[key]:
            yield f"{key} was {before[key]} and is {now[key]}"
