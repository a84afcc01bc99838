"""Whether a search space makes sense, before any trial: every choice, and both ends of every interval, must compose."""

from collections.abc import Callable, Iterator, Sequence

from finetune.errors import ConfigError
from finetune.search.spaces.space import Dimension, SearchSpace, SettingValue, same

Compose = Callable[[Sequence[str]], object]


def check_space(space: SearchSpace, compose: Compose, is_group: Callable[[str], bool]) -> None:
    """Check that the trials of a space compose.

    Args:
        space: The space.
        compose: Composes a trial's overrides, and raises ConfigError where they do not go together.
        is_group: Whether a key is that of a group, whose options may each bring other settings.

    Raises:
        ConfigError: One does not.
    """
    for values in covering(space, is_group):
        overrides = space.overrides(values)
        try:
            compose(overrides)
        except ConfigError as error:
            hint = " A setting that only some options have needs a condition (when:) in a file of conf/space."
            several = len(overrides) > 1
            raise ConfigError(f"The trial {' '.join(overrides)} fails: {error}{hint if several else ''}") from error


def covering(space: SearchSpace, is_group: Callable[[str], bool]) -> Iterator[dict[str, SettingValue]]:
    """Yield few trials in which every sample of every dimension occurs.

    Raises:
        ConfigError: A setting is never tried, because its conditions never hold.
    """
    waiting = {each.key: samples(each, grouped=is_group(each.key)) for each in space.dimensions}
    while any(waiting.values()):
        target = next(each for each in space.dimensions if waiting[each.key])
        values = trial_with(space, target, waiting)
        if target.key not in values:
            raise ConfigError(f"space.when: {target.key} is never tried, since {' and '.join(map(str, target.when))} "
                              "never holds.")  # fmt: skip
        for key, value in values.items():
            waiting[key] = [each for each in waiting[key] if not same(each, value)]
        yield values


def samples(dimension: Dimension, *, grouped: bool) -> list[SettingValue]:
    """Return the values to be tried; of a plain setting one of each type tells what all of that type do."""
    found = dimension.samples()
    if grouped or dimension.kind != "choice":
        return found
    return list({type(value): value for value in reversed(found)}.values())


def trial_with(
    space: SearchSpace, target: Dimension, waiting: dict[str, list[SettingValue]]
) -> dict[str, SettingValue]:
    """Return a trial in which a dimension is tried, with values that have not been tried yet where there are some."""
    forced = required(space, target)
    values: dict[str, SettingValue] = {}
    for each in space.dimensions:
        if each.key in forced:
            values[each.key] = forced[each.key]
        elif space.active(each, values):
            values[each.key] = (waiting[each.key] or each.samples())[0]
    return values if space.active(target, values) else {}


def required(space: SearchSpace, target: Dimension) -> dict[str, SettingValue]:
    """Return values under which a dimension is tried."""
    dimensions = {each.key: each for each in space.dimensions}
    found: dict[str, SettingValue] = {}
    for condition in target.when:
        other = dimensions[condition.key]
        fitting = [choice.value for choice in other.choices if choice.text in condition.texts]
        found |= {**required(space, other), **({other.key: fitting[0]} if fitting else {})}
    return found
