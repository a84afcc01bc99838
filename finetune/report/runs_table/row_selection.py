"""Row selection of the runs table: which runs, with which values, in which order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from finetune.config.conditions import ValueCondition, number, read_conditions, text
from finetune.errors import ConfigError, nearest
from finetune.report.runs_table.entries import RunEntry


@dataclass(frozen=True)
class RowSelection:
    """What was asked of a list.

    Attributes:
        columns: Names of the values that are shown.
        asked: Whether the columns were typed, so that none is left out for lack of room.
        conditions: All that a row fulfils.
        sort: The name of the value that rows are ordered by; None for the order that they have.
        descending: Whether the largest comes first.
        limit: How many rows there are at most; None for all.
    """

    columns: tuple[str, ...]
    asked: bool = False
    conditions: tuple[ValueCondition, ...] = ()
    sort: str | None = None
    descending: bool = False
    limit: int | None = None

    def apply(self, entries: Sequence[RunEntry]) -> list[RunEntry]:
        """Return the rows that are shown.

        Raises:
            ConfigError: No row has a value of a name that was typed.
        """
        typed = [condition.key for condition in self.conditions]
        typed += [*(self.columns if self.asked else ()), *([self.sort] if self.sort is not None else [])]
        check_keys(typed, entries)
        kept = [entry for entry in entries if self.admits(entry)]
        return (kept if self.sort is None else ordered(kept, self.sort, descending=self.descending))[: self.limit]

    def admits(self, entry: RunEntry) -> bool:
        """Return whether a row fulfils all conditions."""
        return all(condition.holds(entry.value(condition.key)) for condition in self.conditions)


def read_choice(
    columns: object, default: Sequence[str], *, conditions: str | None, sort: str | None, limit: int | None
) -> RowSelection:
    """Return what was typed as a choice.

    Raises:
        ConfigError: The columns are no names, or the filter cannot be read.
    """
    names = [columns] if isinstance(columns, str) else columns
    if names is not None and not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise ConfigError(f"columns={columns} is no list of names. Type columns=[name,test/accuracy] or one name.")
    return RowSelection(
        tuple(dict.fromkeys(names)) if isinstance(names, list) else tuple(default),
        asked=names is not None,
        conditions=tuple(read_conditions(conditions)) if conditions is not None else (),
        sort=sort.removeprefix("-") if sort else None,
        descending=sort is not None and sort.startswith("-"),
        limit=limit,
    )


def check_keys(keys: Iterable[str], entries: Sequence[RunEntry]) -> None:
    """Check that each name is that of a value of some row.

    Raises:
        ConfigError: One is not.
    """
    for key in keys:
        if any(entry.value(key) is not None for entry in entries):
            continue
        known = sorted({name for entry in entries for name in entry.keys()})  # noqa: SIM118 - it is no dictionary
        if key not in known:
            ending = [name for name in known if name.endswith((f"/{key}", f".{key}"))]
            hint = f" Did you mean '{min(ending, key=len)}'?" if ending else nearest(key, known)
            raise ConfigError(
                f"Nothing here is called '{key}'; a name is a metric (test/accuracy), a setting (optimizer.lr) or a "
                f"key of run.json (status).{hint}"
            )


def ordered(entries: Sequence[RunEntry], key: str, *, descending: bool) -> list[RunEntry]:
    """Return rows by a value, numbers before words; those that lack it come last either way, equals stay in order."""
    having = [entry for entry in entries if entry.value(key) is not None]
    lacking = [entry for entry in entries if entry.value(key) is None]

    def rank(entry: RunEntry) -> tuple[int, float, str]:
        value = entry.value(key)
        found = number(value)
        kind = 0 if found is not None else 1
        return (-kind if descending else kind, found or 0.0, "" if found is not None else text(value).lower())

    return sorted(having, key=rank, reverse=descending) + lacking
