"""What Hydra checks a composition against, derived from the settings: the same keys and types, and no ranges.

Where an option of a group leaves a key out, it has the value of the group's first file, which stands in conf/.
"""

from collections.abc import Mapping
from dataclasses import Field, field, fields, make_dataclass
from pathlib import Path
from typing import Any, Literal, Optional, get_args, get_origin

from omegaconf import MISSING, OmegaConf

from finetune.config.settings.checked import Checked, Target, hints, without_none
from finetune.config.settings.data_groups import DataSettings
from finetune.config.settings.phases import Strategy
from finetune.config.settings.root_table import ROOTS
from finetune.config.settings.run_groups import LoggerSettings
from finetune.config.settings.search_groups import POOLS, PoolSettings

_MADE: dict[tuple[type, Path], Any] = {}
# groups that may have further keys, which others refer to; `check_read` says which must be read
OPEN = (DataSettings, LoggerSettings, Strategy, Target)
# the file of each group that the others build on
_FIRST = {
    "model.": "model/timm", "head.": "head/linear", "augment.": "augment/none", "optimizer.": "optimizer/timm",
    "schedule.": "schedule/cosine", "trainer.": "trainer/auto", "cv.": "cv/kfold", "sweep.": "sweep/_base",
    "ood.": "ood/_base",
}  # fmt: skip


def schemas(folder: Path) -> dict[str, Any]:
    """Return the schema of each root by its name; that of -m has no file, since it is no command.

    Args:
        folder: Of the configurations.
    """
    found = {f"{name}_schema": schema_of(cls, folder) for name, cls in ROOTS.items()}
    defaults: Any = field(default_factory=lambda: ["_self_", {"pool": "local"}])
    pool: Any = field(default_factory=dict)
    return {
        **found,
        "multirun_schema": make_dataclass(
            "MultirunSettings", [("defaults", list[Any], defaults), ("pool", dict[str, Any], pool)]
        ),
    }


def pool_schemas(folder: Path) -> dict[str, Any]:
    """Return the schema of each kind of pool by its name."""
    return {f"{name}_schema": schema_of(cls, folder) for name, cls in POOLS.items()}


def schema_of(cls: type[Checked], folder: Path) -> Any:
    """Return settings as a dataclass that OmegaConf takes: not frozen, of its types, without ranges."""
    if (cls, folder) not in _MADE:
        first = _FIRST.get(cls.place)
        given: Any = OmegaConf.to_container(OmegaConf.load(folder / f"{first}.yaml")) if first else {}
        entries = [
            (entry.name, *_typed_field(_composed(entry, hints(cls)), folder, given.get(entry.name, MISSING)))
            for entry in fields(cls)
            if not entry.metadata.get("derived")
        ]
        _MADE[cls, folder] = make_dataclass(cls.__name__, entries)
    return _MADE[cls, folder]


def _typed_field(hint: Any, folder: Path, given: Any) -> tuple[Any, Any]:
    """Return the type of a key for OmegaConf, and its default."""
    kind = without_none(hint)
    if kind is PoolSettings:
        return Any, field(default=None)
    if kind in OPEN or get_origin(kind) in (Mapping, dict) or _is_mapping(kind):
        return _plain(hint), field(default_factory=dict)
    if isinstance(kind, type) and issubclass(kind, Checked):
        schema = schema_of(kind, folder)
        return schema, field(default_factory=schema)
    default = field(default_factory=lambda: list(given)) if isinstance(given, list) else field(default=given)
    return _plain(hint), default


def _composed(entry: Field[Any], known: Mapping[str, Any]) -> Any:
    """Return the type of a field in a composition."""
    return Optional[known[entry.name]] if entry.metadata.get("follows") else known[entry.name]  # noqa: UP045 - a variable


def _is_mapping(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _plain(hint: Any) -> Any:
    """Return a type that OmegaConf knows in place of another."""
    kind = without_none(hint)
    if kind is not hint and kind is not Any:
        return Optional[_plain(kind)]  # noqa: UP045 - made of a variable
    if kind in OPEN:
        return dict[str, Any]
    if get_origin(kind) is Literal:
        return str
    if get_origin(kind) is tuple:
        return list[_plain(get_args(kind)[0])]  # type: ignore[misc]
    if _is_mapping(kind):
        return dict[str, _plain(get_args(kind)[1])]  # type: ignore[misc]
    return kind
