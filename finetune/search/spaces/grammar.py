"""Hydra's grammar for search spaces: what an expression means, the same in a file and on the command line."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep, Transformer
from hydra.errors import HydraException

from finetune.config.quoting import quote_value
from finetune.errors import ConfigError
from finetune.search.spaces.space import Dimension, Kind, SearchSpace, SettingValue, SpaceCondition, SpaceValue

Options = Callable[[str], Sequence[str]]

HOW = (
    "Use choice(a,b), range(1,4), interval(0.0,1.0), int(interval(1,10)), tag(log,interval(1e-5,1e-2)), glob(*) or a "
    "comma list."
)


def build_space(
    params: Mapping[str, Any],
    when: Mapping[str, Any],
    typed: Sequence[str],
    *,
    options: Options,
    base: Callable[[str], str | None],
) -> SearchSpace:
    """Return the space of a file and of what was typed, which goes before it.

    Args:
        params: The file's settings with their expressions; one that has a single value is fixed.
        when: The file's conditions: for a setting, other settings with the value or values they must have.
        typed: The overrides of the command line, with and without several values.
        options: Gives the options of a group, for glob.
        base: Gives the value, as it is typed, that a setting has where nothing varies it.

    Raises:
        ConfigError: An expression cannot be read, or a condition is none.
    """
    parsed = [parse(f"{key}={expression_text(key, value)}") for key, value in params.items()]
    own = {override.get_key_element().lstrip("+"): override for override in parse_all(typed)}
    chosen = [own.pop(override.get_key_element().lstrip("+"), override) for override in parsed]
    fixed = [str(each.input_line) for each in chosen if each in parsed and not each.is_sweep_override()]
    swept = [each for each in [*chosen, *own.values()] if each.is_sweep_override()]
    dimensions = [dimension_of(each, options) for each in swept]
    conditions = {key: _read_conditions(key, value) for key, value in when.items()}
    settled = {text.partition("=")[0].lstrip("+"): text.partition("=")[2] for text in fixed}
    return _ordered(conditioned(dimensions, conditions, lambda key: settled.get(key, base(key))), tuple(fixed))


def expression_text(key: str, value: Any) -> str:
    """Return an expression of a file as text."""
    if isinstance(value, list | dict):
        raise ConfigError(f"space.params: {key} is a {type(value).__name__}, and an expression is wanted. {HOW}")
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def parse(text: str) -> Override:
    """Return an override of Hydra's.

    Raises:
        ConfigError: It cannot be read.
    """
    return parse_all([text])[0]


def parse_all(texts: Sequence[str]) -> list[Override]:
    """Return overrides of Hydra's.

    Raises:
        ConfigError: One cannot be read.
    """
    try:
        return list(OverridesParser.create().parse_overrides(list(texts)))
    except HydraException as error:
        raise ConfigError(f"{str(error).splitlines()[0]} {HOW}") from error


def dimension_of(override: Override, options: Options) -> Dimension:
    """Return what an override with several values means.

    Raises:
        ConfigError: It means nothing, or the same value twice.
    """
    sweep = override.value()
    unknown = sorted(getattr(sweep, "tags", set()) - {"log"})
    if unknown:
        raise ConfigError(f"{override.input_line}: tag({unknown[0]}, …) is not known. There is tag(log, …).")
    if getattr(sweep, "shuffle", False):
        raise ConfigError(f"{override.input_line}: shuffle is not for a search. For a random order use sweep=random.")
    if isinstance(sweep, IntervalSweep):
        return _interval(override, sweep)
    if isinstance(sweep, RangeSweep):
        return counted(override, sweep)
    if isinstance(sweep, Glob):
        names = sweep.filter(list(options(override.key_or_group)))
        return choice(override, [SpaceValue(name, name) for name in names])
    assert isinstance(sweep, ChoiceSweep)
    if "log" in sweep.tags:
        raise ConfigError(f"{override.input_line}: tag(log, …) is for an interval or a range, not for choices.")
    texts = override.sweep_iterator(transformer=Transformer.encode)
    return choice(override, [SpaceValue(_plain(value, str(text)), _written(value, text)) for value, text in zip(
        override.sweep_iterator(), texts, strict=True)])  # fmt: skip


def _plain(value: Any, text: str) -> SettingValue:
    """Return what is recorded of a value: itself, or its text where it is a list or a dictionary."""
    return value if value is None or isinstance(value, str | int | float) else text


def _written(value: Any, text: Any) -> str:
    """Return how a value is typed; a string that would be read as something else is quoted."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return str(text)
    try:
        alike = parse(f"key={value}").value() == value
    except ConfigError:
        alike = False
    return value if alike else quote_value(value)


def choice(override: Override, choices: Sequence[SpaceValue]) -> Dimension:
    """Return a dimension of some choices."""
    if not choices:
        raise ConfigError(f"{override.input_line} fits no option. {HOW}")
    for one, other in itertools.combinations(choices, 2):
        if one.value == other.value:  # 1 and 1.0 and true are one key to a study
            raise ConfigError(f"{override.input_line} has the value {other.text} twice. Leave one out.")
    return Dimension(override.get_key_element(), "choice", tuple(choices))


def _interval(override: Override, sweep: IntervalSweep) -> Dimension:
    """Return a dimension of numbers between two ends, which belong to it."""
    low, high = sweep.start, sweep.end
    if low is None or high is None or not low < high:
        raise ConfigError(f"{override.input_line}: an interval goes from a number to a larger one.")
    whole = isinstance(low, int) and isinstance(high, int)
    log = "log" in sweep.tags
    if log and low <= 0:
        raise ConfigError(f"{override.input_line}: with tag(log, …) the lower end must be above 0.")
    kind: Kind = "whole" if whole else "decimal"
    return Dimension(override.get_key_element(), kind, (), low, high, 1 if whole else None, log)


def counted(override: Override, sweep: RangeSweep) -> Dimension:
    """Return a dimension of numbers at equal steps, the last before the end, as in Python."""
    values: list[Any] = list(override.sweep_iterator())
    if not values:
        raise ConfigError(f"{override.input_line} is empty. A range goes from a number to below a larger one.")
    values = sorted(values)
    step = abs(sweep.step or 1)
    whole = all(isinstance(value, int) for value in values)
    log = "log" in sweep.tags
    if log and not (whole and step == 1 and values[0] >= 1):
        raise ConfigError(
            f"{override.input_line}: tag(log, …) goes with a range of whole numbers from 1 at steps of 1, or with an "
            "interval."
        )
    kind: Kind = "whole" if whole else "decimal"
    choices = () if whole else tuple(SpaceValue(value, repr(value)) for value in values)
    return Dimension(override.get_key_element(), kind, choices, values[0], values[-1], step, log)


def _read_conditions(key: str, value: Any) -> tuple[SpaceCondition, ...]:
    """Return the conditions of a setting.

    Raises:
        ConfigError: They are not a dictionary of settings with their values.
    """
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"space.when: {key} must name a setting with the value or values it must have: "
                          f"{key}: {{strategy: lora}}.")  # fmt: skip
    listed = {name: found if isinstance(found, list) else [found] for name, found in value.items()}
    return tuple(
        SpaceCondition(name, tuple(expression_text(name, each) for each in found)) for name, found in listed.items()
    )


def conditioned(
    dimensions: Sequence[Dimension],
    conditions: Mapping[str, tuple[SpaceCondition, ...]],
    base: Callable[[str], str | None],
) -> list[Dimension]:
    """Return the dimensions with their conditions; what never varies decides at once.

    Raises:
        ConfigError: A condition is of a setting that is no choice.
    """
    varying = {each.key: each for each in dimensions}
    kept = []
    for dimension in dimensions:
        own = conditions.get(dimension.key, ())
        for other in (varying[condition.key] for condition in own if condition.key in varying):
            if other.kind != "choice":
                raise ConfigError(f"space.when: {dimension.key} depends on {other}, and only a choice can decide.")
        settled = [condition for condition in own if condition.key not in varying]
        if all(base(condition.key) in condition.texts for condition in settled):
            kept.append(replace(dimension, when=tuple(each for each in own if each.key in varying)))
    return kept


def _ordered(dimensions: Sequence[Dimension], fixed: tuple[str, ...]) -> SearchSpace:
    """Return the space with each setting after those that it depends on.

    Raises:
        ConfigError: Settings depend on each other.
    """
    left, placed = list(dimensions), list[Dimension]()
    keys = {each.key for each in dimensions}
    while left:
        done = {each.key for each in placed} | ({c.key for each in left for c in each.when} - keys)
        ready = [each for each in left if all(condition.key in done for condition in each.when)]
        if not ready:
            raise ConfigError(f"space.when: {', '.join(each.key for each in left)} depend on each other.")
        placed += ready
        left = [each for each in left if each not in ready]
    return SearchSpace(tuple(placed), fixed)
