"""Stored files: JSON and YAML of folders that anybody may have written, within limits of size and depth.

What is larger, deeper, or refers to itself is no file of finetune's, and reading it could take all memory or hang.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from finetune.errors import RunError

MOST_BYTES = 64 * 2**20
MOST_CONFIG_BYTES = 2**20
MOST_DEPTH = 60  # of lists and mappings in each other
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a file, or None where it cannot be read, is none, or is beyond the limits."""
    try:
        return read_stored_json(path)
    except RunError:
        return None


def read_stored_json(path: Path) -> dict[str, Any]:
    """Return the object in a file.

    Raises:
        RunError: It cannot be read, is no JSON object, or is beyond the limits.
    """
    try:
        found = json.loads(_text(path, MOST_BYTES))
        check_depth(found)
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({_cause(error)}).") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} cannot be read (it holds no object).")
    return found


def read_stored_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a file.

    Raises:
        RunError: It cannot be read, is no YAML mapping, refers to itself, or is beyond the limits.
    """
    try:
        text = _text(path, MOST_CONFIG_BYTES)
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_DEPTH or isinstance(event, yaml.AliasEvent):
                raise ValueError("it is nested too deeply, or refers to itself")
        found = yaml.load(text, Loader=_LOADER)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read as a configuration ({_cause(error)}). Start the run anew.") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise RunError(f"{path} cannot be read as a configuration (it holds no settings). Start the run anew.")
    return found


def check_depth(content: Any) -> None:
    """Check that lists and objects are not nested deeper than those of finetune's files.

    Raises:
        ValueError: They are.
    """
    layer = [content]
    for _ in range(MOST_DEPTH):
        inner = [node.values() if isinstance(node, dict) else node for node in layer if isinstance(node, dict | list)]
        layer = [entry for node in inner for entry in node]
    if layer:
        raise ValueError("it is nested too deeply")


def _text(path: Path, most: int) -> str:
    """Return the text of an ordinary file of limited size."""
    if not path.is_file():
        raise FileNotFoundError(2, "there is no such file" if not path.exists() else "it is no file", str(path))
    if path.stat().st_size > most:
        raise ValueError(f"it is larger than {most // 2**20} MB")
    return path.read_text(encoding="utf-8")


def _cause(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
