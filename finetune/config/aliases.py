"""Former names of settings, options and values: they work wherever they are typed, and it is said what to type now.

To give a setting another name, add a line to a table: the command line, files of the user's own, search spaces and
stored runs follow.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, open_dict

from finetune.errors import ConfigError

RENAMED_KEYS = {
    "noise": "label_noise",
    "interpolate": "wise_ft",
    "ood.accept": "ood.tpr",
    "features.test_views": "tta_views",
    "data.imbalance": "imbalance",
    "audit.bits": "audit.hash_distance",
}
RENAMED_VALUES = {"head.solver": {"means": "nearest_mean", "samme": "adaboost"}}
# of `_target_`, by the beginning of their paths
RENAMED_TARGETS = {
    "finetune.data.hub.": "finetune.data.sources.hub.",
    "finetune.training.averaging.": "finetune.training.callbacks.swa.",
    "finetune.training.snapshots.": "finetune.training.callbacks.snapshots.",
}
RENAMED_OPTIONS = {"model": {"mobile": "efficientnet_lite0"}, "optimizer": {"mae": "adamw_mae"}}
_OVERRIDE = re.compile(r"(~?|[+]{0,2})([\w./]+)((?:@[^=]*)?=.*)", re.DOTALL)


def rename_overrides(overrides: Sequence[str], *, say: bool = True) -> list[str]:
    """Return a command line with today's names; other words stay as they are.

    Raises:
        ConfigError: A setting is typed under both of its names.
    """
    renamed = [_renamed_override(override) for override in overrides]
    pairs = [(old, new) for old, new in zip(overrides, renamed, strict=True) if old != new]
    typed = {_key(override): override for override in overrides}
    for old, new in pairs:
        if _key(new) != _key(old) and _key(new) in typed:
            raise ConfigError(f"{old} and {typed[_key(new)]} are two names of one setting. Leave the first one out.")
    if pairs and say:
        tell_once("; ".join(f"{old} is called {new} now" for old, new in pairs))
    return renamed


def rename_values(key: str, text: str) -> str:
    """Return the values of a setting or a group, as they are typed, with today's names."""
    for old, new in {**RENAMED_VALUES, **RENAMED_OPTIONS}.get(key, {}).items():
        text = re.sub(rf"(?<![\w./-]){old}(?![\w./-])", new, text)
    return text


def rename_space(settings: Mapping[str, Any], *, say: bool = True) -> dict[str, Any]:
    """Return the expressions, or conditions, of settings with today's names.

    Raises:
        ConfigError: A setting is there under both of its names.
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        new = RENAMED_KEYS.get(key, key)
        if new != key and new in settings:
            raise ConfigError(f"{key} and {new} are two names of one setting. Leave the first one out.")
        found[new] = _renamed_value(new, value)
        if say and (found[new], new) != (value, key):
            tell_once(f"{key}: {value} is called {new}: {found[new]} now")
    return found


def rename_config(config: dict[str, Any], package: str = "") -> list[str]:
    """Give a configuration today's names, in place; where a setting has both, today's counts.

    Args:
        config: A plain one, such as that of a stored run.
        package: Where it stands in a larger one, such as data; what belongs elsewhere in it is left as it is.

    Returns:
        What was changed, in words.
    """
    changes = []
    start = f"{package}." if package else ""
    for old, new in RENAMED_KEYS.items():
        node, name = _place(config, old.removeprefix(start)) if old.startswith(start) else (None, "")
        if node is None or name not in node or not new.startswith(start):
            continue
        value = node.pop(name)
        other, other_name = _place(config, new.removeprefix(start), make=True)
        if other is not None:
            other.setdefault(other_name, value)
        changes.append(f"{old} is called {new} now")
    for key, names in RENAMED_VALUES.items():
        node, name = _place(config, key.removeprefix(start)) if key.startswith(start) else (None, "")
        if node is not None and node.get(name) in list(names):
            changes.append(f"{key}={node[name]} is called {key}={names[node[name]]} now")
            node[name] = names[node[name]]
    return changes + _rename_targets(config)


def move_strays(config: DictConfig) -> None:
    """Move what a file of a group has set under a former name to where it belongs; what is set there counts more."""
    for old, new in RENAMED_KEYS.items():
        place, _, name = old.rpartition(".")
        node = OmegaConf.select(config, place) if place else config
        if isinstance(node, DictConfig) and name in node and new in config:
            with open_dict(node):
                value = node.pop(name)
            if config[new] in (None, "none"):
                config[new] = value
            tell_once(f"{old}={value} is called {new}={value} now")


class RenamingSource(FileConfigSource):
    """Files of configurations, whose former names are replaced as they are read."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Return a file with today's names."""
        result = super().load_config(config_path)
        plain = OmegaConf.to_container(result.config)
        if isinstance(plain, dict):
            group = config_path.rpartition("/")[0]
            given = result.header["package"]
            package = group.replace("/", ".") if given in (None, "_group_") else given.replace("_global_", "")
            content: dict[str, Any] = {str(key): value for key, value in plain.items()}
            changes = rename_config(content, package) + _rename_defaults(content.get("defaults") or [], group)
            if changes:
                result.config = OmegaConf.create(content)
                tell_once(f"{config_path}: {'; '.join(changes)}")
        return result


def register_source() -> None:
    """Let Hydra read files through the renaming."""
    Plugins.instance()  # registers Hydra's own sources, which must not find the place taken
    SourcesRegistry.instance().types["file"] = RenamingSource


@lru_cache
def tell_once(message: str) -> None:
    """Say on the screen what to type now."""
    print(f"finetune: {message}.", file=sys.stderr)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _renamed_override(override: str) -> str:
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return override
    sign, key, rest = match.groups()
    key = RENAMED_KEYS.get(key, key)
    return f"{sign}{key}{rename_values(key, rest)}"


def _renamed_value(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return rename_values(key, value)
    if isinstance(value, Mapping):
        return rename_space(value, say=False)
    return [_renamed_value(key, each) for each in value] if isinstance(value, list) else value


def _place(config: dict[str, Any], key: str, *, make: bool = False) -> tuple[dict[str, Any] | None, str]:
    """Return what holds a dotted key, None where nothing does, and its last part."""
    *path, name = key.split(".")
    node: Any = config
    for part in path:
        node = node.setdefault(part, {}) if make else node.get(part)
        if not isinstance(node, dict):
            return None, name
    return node, name


def _rename_targets(node: Any) -> list[str]:
    """Give what is named by a path today's path, in place and at any depth, and return what was changed."""
    entries = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    changes = [change for entry in entries for change in _rename_targets(entry)]
    path = node.get("_target_") if isinstance(node, dict) else None
    for old, new in RENAMED_TARGETS.items():
        if isinstance(path, str) and path.startswith(old):
            node["_target_"] = path.replace(old, new, 1)
            changes.append(f"{path} is called {node['_target_']} now")
    return changes


def _rename_defaults(defaults: list[Any], group: str) -> list[str]:
    """Give a file's list of defaults today's options, in place, and return what was changed."""
    changes = []
    for number, entry in enumerate(defaults):
        if isinstance(entry, str):
            found: Any = rename_values(group, entry)
        else:
            words = {key: str(key).split()[-1].partition("@")[0] for key in entry}
            named = {
                key: word.lstrip("/") if word.startswith("/") or not group else f"{group}/{word}"
                for key, word in words.items()
            }
            found = {
                key: rename_values(named[key], each) if isinstance(each, str) else each for key, each in entry.items()
            }
        if found != entry:
            changes.append(f"{entry} is called {found} now")
            defaults[number] = found
    return changes
