"""Trust in stored configurations: what they name by a path is called, so it must be something that conf/ names.

What was typed, or stands in files that this command line composes, is the user's own and is not held against the list.
`trust=true` extends that to folders that are read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.config.settings.targets import TARGET_SETTINGS
from finetune.errors import ConfigError

_OWN: set[str] = set()  # paths that this process has composed by itself
_STATE = {"trust": False}
# deeper than any configuration that was ever stored
STORED_DEPTH = 40


def trust_folders(trust: bool) -> None:
    """Say whether folders that are read may name anything."""
    _STATE["trust"] = trust


def trust_words() -> list[str]:
    """Return what a process of this one's is told, so that it reads folders as this one does."""
    return ["trust=true"] if _STATE["trust"] else []


def own_targets(plain: Any) -> None:
    """Remember the paths of a configuration that was composed here, for when its run is read at the end."""
    _OWN.update(path for path, _ in named_targets(plain))


def check_stored(plain: Any, place: str) -> None:
    """Check what a stored configuration names.

    Args:
        plain: The configuration, or a part of one.
        place: The file that it is from.

    Raises:
        ConfigError: It is no configuration, or names something that conf/ does not.
    """
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{place} holds no configuration. Name a folder that finetune has written.")
    if _STATE["trust"]:
        return
    for path, node in named_targets(plain):
        if path in _OWN:
            continue
        if path not in TARGET_SETTINGS or any(key.startswith("_") and key != "_target_" for key in node):
            raise ConfigError(_refusal(place, path))


def check_stored_overrides(overrides: Sequence[str], config_dir: str | None, place: str) -> None:
    """Check what stored overrides, and the folder of configurations beside them, name.

    Raises:
        ConfigError: They name something that conf/ does not.
    """
    if _STATE["trust"]:
        return
    texts = {place: "\n".join(overrides)}
    if config_dir is not None:
        texts |= {str(file): file.read_text(errors="replace") for file in sorted(Path(config_dir).rglob("*.y*ml"))}
    for source, text in texts.items():
        for match in re.finditer(r"""_target_["']?\s*[:=]\s*["']?([^\s"',}\]]*)""", text):
            if match[1] not in TARGET_SETTINGS:
                raise ConfigError(_refusal(source, match[1]))
        if "_target_" in text and len(re.findall("_target_", text)) != len(re.findall(r"_target_[\"']?\s*[:=]", text)):
            raise ConfigError(_refusal(source, "what it does not name plainly"))


def _refusal(place: str, path: str) -> str:
    return (
        f"{place} would run {path or 'what it does not name'}, which is none of finetune's own. If the folder is yours "
        "and you want that, type trust=true with this command."
    )


def named_targets(node: Any, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the path of everything that a plain configuration would make, at any depth, with the node that names it.

    Raises:
        ConfigError: It is nested too deeply.
    """
    if depth > STORED_DEPTH:
        raise ConfigError(f"A stored configuration is nested deeper than {STORED_DEPTH} levels, unlike finetune's.")
    if isinstance(node, Mapping):
        if any(str(key).startswith("_") for key in node):
            yield str(node.get("_target_", "")), {str(key): value for key, value in node.items()}
        node = list(node.values())
    for entry in node if isinstance(node, list | tuple) else ():
        yield from named_targets(entry, depth + 1)
