"""What all settings have in common: a place in the configuration, and ranges that are checked whenever one is made.

A field's range stands in its metadata. The key in a message is the one that is typed: a class knows its place.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from finetune.errors import ConfigError, nearest

S = TypeVar("S", bound="Checked")
# a field whose values several types may have, such as a number or auto; what uses it says which
Open = Any
# of a field that may be null in a composition, since its value follows from another setting when it is resolved
FOLLOWS = {"follows": True}
_HINTS: dict[type, dict[str, Any]] = {}  # by class, which never change
# the settings of what conf/ names by its path; `targets` fills it
KNOWN_TARGETS: dict[str, type["Checked"]] = {}


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may be, and what they mean in a message."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    what: str = ""
    such: str = ""

    def holds(self, value: float) -> bool:
        """Return whether a number is one of them."""
        return math.isfinite(value) and not (
            (self.least is not None and value < self.least)
            or (self.above is not None and value <= self.above)
            or (self.most is not None and value > self.most)
            or (self.below is not None and value >= self.below)
        )

    def expected(self, *, whole: bool) -> str:
        """Return in words which numbers they are."""
        if whole and self.least is not None and self.most is None and not self.what:
            return f"a whole number of {self.least:g} or more"
        ends = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        said = " and ".join(f"{word} {end:g}" for word, end in ends.items() if end is not None)
        what = self.what or ("a whole number" if whole else "")
        return f"{what}, {said}".lstrip(", ") + (f", such as {self.such}" if self.such else "")


def in_range(
    *, least: float | None = None, above: float | None = None, most: float | None = None, below: float | None = None,
    what: str = "", such: str = "",
) -> dict[str, Range]:  # fmt: skip
    """Return the metadata of a field with a range, which a sequence's members and a mapping's values are in too."""
    return {"range": Range(least, above, most, below, what, such)}


@dataclass(frozen=True)
class Target:
    """Something interchangeable that a configuration names by its path, and what it is made with.

    Attributes:
        path: Of the class or function, dotted.
        arguments: By name.
    """

    path: str
    arguments: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The last word of the path."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Checked:
    """Settings that cannot be out of range.

    Attributes:
        place: The keys before those of the settings, with a dot at the end.
    """

    place: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check each field's range.

        Raises:
            ConfigError: A value is out of it.
        """
        for entry in fields(self):
            check_value(f"{self.place}{entry.name}", getattr(self, entry.name), hints(type(self))[entry.name],
                        entry.metadata.get("range"))  # fmt: skip


def hints(cls: type) -> dict[str, Any]:
    """Return the types of the fields of a class."""
    if cls not in _HINTS:
        _HINTS[cls] = get_type_hints(cls)
    return _HINTS[cls]


def check_value(key: str, value: Any, hint: Any, limits: Range | None) -> None:
    """Check that a value is one of the choices of its type, and in its range.

    Raises:
        ConfigError: It is not.
    """
    kind = without_none(hint)
    if value is None:
        return
    if get_origin(kind) is Literal and value not in get_args(kind):
        choices = [str(choice) for choice in get_args(kind)]
        raise ConfigError(f"{key}={shown(value)} is not one of {', '.join(choices)}.{nearest(str(value), choices)}")
    if limits is None:
        return
    members = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, tuple) else [value]
    for member in members:
        known = not isinstance(member, bool) and isinstance(member, int if kind is int else int | float)
        if member is not None and not (known and limits.holds(member)):
            raise ConfigError(f"{key}={shown(value)} must be {limits.expected(whole=kind is int)}.")


def shown(value: Any) -> str:
    """Return a value as it would be typed."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"
    return str(value)


def without_none(hint: Any) -> Any:
    """Return the type that a value has where it is not None."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 else Any


def typed(cls: type[S], content: Mapping[str, Any]) -> S:
    """Return settings of plain values.

    Args:
        cls: Of the settings.
        content: Values by key; other keys, which only others refer to, are left alone.

    Raises:
        ConfigError: A value is missing, of another type, or out of its range.
    """
    return cls(**{
        entry.name: converted(f"{cls.place}{entry.name}", content, entry.name, hints(cls)[entry.name],
                              entry.metadata.get("range"))
        for entry in fields(cls) if entry.init
    })  # fmt: skip


def converted(key: str, content: Mapping[str, Any], name: str, hint: Any, limits: Range | None) -> Any:
    """Return the value of a key in the type of its field.

    Raises:
        ConfigError: There is none, or it is of another type.
    """
    if name not in content:
        raise ConfigError(f"{key} is not set. Type {key}=VALUE.")
    return _converted(key, content[name], hint, limits)


def _converted(key: str, value: Any, hint: Any, limits: Range | None = None) -> Any:
    """Return a plain value in another type."""
    kind = without_none(hint)
    origin = get_origin(kind)
    if value is None and kind is not hint:
        return None
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{key}={shown(value)} must be a list, such as {key}=[{shown(value)}].")
        return tuple(_converted(key, entry, get_args(kind)[0], limits) for entry in value)
    if origin in (Mapping, dict) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        _, member = get_args(kind)
        known = (value or {}).items()
        return {str(name): _converted(f"{key}.{name}", entry, member, limits) for name, entry in known}
    if kind is Target:
        return read_target(key, value)
    if hasattr(kind, "read"):
        return kind.read(value)
    if isinstance(kind, type) and issubclass(kind, Checked):
        return typed(kind, value or {})
    return _plain(key, value, kind, limits)


def _plain(key: str, value: Any, kind: Any, limits: Range | None) -> Any:
    """Return a number, a word or a switch of its type; whole numbers are taken for others.

    Raises:
        ConfigError: It is of another type.
    """
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    if kind not in wanted or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and value is not None and not isinstance(value, dict | list):
        return str(value)
    expected = wanted[kind] if limits is None else limits.expected(whole=kind is int)
    raise ConfigError(f"{key}={shown(value)} must be {expected}.")


def read_target(key: str, value: Any) -> Target:
    """Return what a node with a `_target_` names, with arguments of the types that it takes.

    Raises:
        ConfigError: It names nothing, or an argument is none of it, of another type or out of its range.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("_target_"), str):
        raise ConfigError(f"{key} names nothing that can be made: it has no _target_. Choose an option of conf/.")
    arguments = {str(name): entry for name, entry in value.items() if name != "_target_"}
    settings = KNOWN_TARGETS.get(value["_target_"])
    return Target(value["_target_"], arguments if settings is None else _arguments(key, arguments, settings))


def _arguments(key: str, given: Mapping[str, Any], settings: type[Checked]) -> dict[str, Any]:
    """Return the arguments of a target in the types of its settings; those that are not given are its own matter."""
    limits = {entry.name: entry.metadata.get("range") for entry in fields(settings)}
    known = hints(settings)
    found = {}
    for name in given:
        whole = f"{settings.place or f'{key}.'}{name}"
        if name not in limits:
            raise ConfigError(f"{whole} is no setting of {key} (it has: {', '.join(limits)}).{nearest(name, limits)}")
        found[name] = converted(whole, given, name, known[name], limits[name])
        check_value(whole, found[name], known[name], limits[name])
    return found
