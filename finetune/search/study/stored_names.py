"""Stored names: what a study calls the settings and values that an earlier version named otherwise.

Optuna finds what it has drawn by these names, so that a sweep that goes on keeps them; runs are started by today's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune.config.aliases import RENAMED_KEYS, RENAMED_OPTIONS, RENAMED_VALUES, rename_overrides, rename_values
from finetune.search.spaces.space import SettingValue


@dataclass(frozen=True)
class StoredNames:
    """The names in a study that are not today's.

    Attributes:
        keys: Of settings, by today's.
        values: Of each setting's values, by today's key and by today's value.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)

    def key(self, key: str) -> str:
        """Return the study's name of a setting."""
        return self.keys.get(key, key)

    def value(self, key: str, value: SettingValue) -> SettingValue:
        """Return the study's name of a setting's value."""
        return self.values.get(key, {}).get(value, value)

    def stored(self, values: Mapping[str, SettingValue]) -> dict[str, SettingValue]:
        """Return the values of settings under the study's names."""
        return {self.key(key): self.value(key, value) for key, value in values.items()}


def stored_names(space: Mapping[str, str]) -> StoredNames:
    """Return the names of a study whose space was described so."""
    return StoredNames(
        keys={RENAMED_KEYS[old]: old for old in space if old in RENAMED_KEYS},
        values={
            key: {new: old for old, new in names.items() if re.search(rf"(?<![\w./-]){old}(?![\w./-])", space[key])}
            for key, names in {**RENAMED_VALUES, **RENAMED_OPTIONS}.items()
            if key in space
        },
    )


def renamed_description(space: Mapping[str, str]) -> dict[str, str]:
    """Return the description of a space with today's names."""
    renamed = {}
    for old, text in space.items():
        key = RENAMED_KEYS.get(old, old)
        if text.lstrip("+").startswith(f"{old}="):  # not a dimension, but what all trials share, as it was typed
            renamed[key] = rename_overrides([text], say=False)[0]
            continue
        values, when, conditions = text.partition(" when ")
        said = " and ".join(rename_overrides(conditions.split(" and "), say=False))
        renamed[key] = f"{rename_values(key, values)}{when}{said}"
    return renamed
