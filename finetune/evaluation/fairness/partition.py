"""Groups to look at: the images of each value of a group column, or of two columns crossed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.config.settings.run_groups import GroupSettings
from finetune.data.groups import JOINED, group_names, joined_names
from finetune.errors import ConfigError, nearest
from finetune.evaluation.predictions import Predictions

# where nobody has said which groups are looked at
EVERY_GROUP = GroupSettings(columns=None, min_images=30, intersections=())


@dataclass(frozen=True, eq=False)
class Partition:
    """Images by group.

    Attributes:
        column: The column's name, or those of two.
        groups: Numbers of the images of each group, by its name.
    """

    column: str
    groups: dict[str, np.ndarray]


def check_group_columns(settings: GroupSettings, known: Sequence[str]) -> GroupSettings:
    """Return which groups are looked at, checked against the group columns that there are.

    Raises:
        ConfigError: A column is not among them, or an intersection is not of two columns.
    """
    for column in settings.columns or ():
        _check_column(column, known, "groups.columns")
    for pair in settings.intersections:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or pair[0] == pair[1]:
            raise ConfigError(
                f"groups.intersections={list(settings.intersections)} must be pairs of columns: "
                "groups.intersections=[[site,sex]]."
            )
        for column in pair:
            _check_column(column, known, "groups.intersections")
    return settings


def _check_column(column: Any, known: Sequence[str], setting: str) -> None:
    """Check that a group column is there.

    Raises:
        ConfigError: It is not.
    """
    if column in known:
        return
    if not known:
        raise ConfigError(
            f"{setting} names '{column}', and the images have no group columns. Name those of the table: data=csv "
            f"data.group_columns=[{column}]."
        )
    raise ConfigError(
        f"{setting} names '{column}', which is no group column. There are: {', '.join(known)}."
        f"{nearest(str(column), known)}"
    )


def partitions(predictions: Predictions, settings: GroupSettings) -> list[Partition]:
    """Return the groups of each column, then those of each intersection, with their names in order."""
    frame = predictions.groups
    columns = list(map(str, frame.columns)) if settings.columns is None else list(settings.columns)
    found = [Partition(column, _rows(group_names(frame[column]))) for column in columns]
    for pair in settings.intersections:
        found.append(Partition(JOINED.join(pair), _rows(joined_names(frame, pair))))
    return found


def _rows(names: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.flatnonzero(names == name) for name in sorted(set(names.tolist()))}
