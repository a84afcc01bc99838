"""The reference of settings: each key with its meaning, type and default, read from conf/ and its schemas.

The help of a command (`command_help`) and docs/reference/configuration.md (`reference_page`) are both made of it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from finetune.config.compose import conf_dir

LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^ #].*?))?(?: +# (?P<comment>.*))?$")
_HIDDEN = ("hydra", "verb", "defaults")


@dataclass(frozen=True)
class Setting:
    """A key of a configuration.

    Attributes:
        key: As it is typed.
        default: As it would be typed; ??? where it must be typed.
        kind: Its type, in words.
        meaning: The comment where its default stands; empty for none.
    """

    key: str
    default: str
    kind: str
    meaning: str


@dataclass(frozen=True)
class ConfFile:
    """What a file of conf/ says.

    Attributes:
        about: What it selects.
        commands: The commands that its header shows.
        values: Its own values, as they are written, by dotted key; of a mapping the text is empty.
        comments: What is said of them.
    """

    about: str
    commands: tuple[str, ...]
    values: dict[str, str]
    comments: dict[str, str]


@cache
def read_conf_file(path: Path) -> ConfFile:
    """Read a file of conf/ with its comments, which a YAML parser leaves out."""
    header: list[str] = []
    values: dict[str, str] = {}
    comments: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in path.read_text().splitlines():
        if line.startswith("#") and not values:
            header.append(line.lstrip("#"))
        match = LINE.match(line)
        if match is None:
            continue
        indent = len(match["indent"])
        parents = [(depth, name) for depth, name in parents if depth < indent]
        key = ".".join([*(name for _, name in parents), match["key"]])
        parents.append((indent, match["key"]))
        if key.split(".")[0] not in _HIDDEN:
            values[key] = match["value"] or ""
            if match["comment"]:
                comments[key] = match["comment"]
    shown = tuple(re.split(r" {3,}| +# ", line.strip())[0] for line in header if line.startswith("   finetune"))
    about = " ".join(line.strip() for line in header if not line.startswith("   "))
    return ConfFile(about, shown, values, comments)


def config_groups() -> list[str]:
    """Return the names of the groups."""
    return sorted(folder.name for folder in conf_dir().iterdir() if folder.is_dir() and folder.name != "hydra")


def option_names(group: str) -> list[str]:
    """Return the options of a group; files that others build on are left out."""
    return sorted(file.stem for file in (conf_dir() / group).glob("*.yaml") if not file.stem.startswith("_"))


def root_files(command: str) -> list[Path]:
    """Return a command's own file, and the one that it builds on, if any."""
    file = conf_dir() / f"{command}.yaml"
    base = conf_dir() / "_train.yaml"
    return [file, base] if re.search(r"^  - _train$", file.read_text(), re.MULTILINE) else [file]


def command_groups(command: str) -> list[str]:
    """Return the groups that a command chooses from."""
    text = "\n".join(path.read_text() for path in root_files(command))
    return [name for name in config_groups() if re.search(rf"^  - {name}: ", text, re.MULTILINE)]


@cache
def meaning_of(key: str, command: str) -> str:
    """Return the comment on a key, in a command's own file, else in its default option, or in others of the group."""
    group, _, rest = key.partition(".")
    found = [read_conf_file(path).comments.get(key) for path in [*root_files(command), conf_dir() / "_train.yaml"]]
    if rest and (conf_dir() / group).is_dir():
        text = "\n".join(path.read_text() for path in root_files(command))
        default = re.search(rf"^  - {group}: (\w+)", text, re.MULTILINE)
        first = [default[1] if default else "", "_base"]
        files = sorted((conf_dir() / group).glob("*.yaml"), key=lambda path: (path.stem not in first, path.stem))
        found += [read_conf_file(path).comments.get(rest) for path in files]
    return next((comment for comment in found if comment), "")


def compose_command(command: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Return a command's configuration as conf/ states it."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command, list(overrides))


def list_settings(config: DictConfig, command: str) -> Iterator[Setting]:
    """Yield the settings of a composed configuration in their order; a list or an open mapping is one."""
    yield from _settings(config, command, "")


def _settings(config: DictConfig, command: str, prefix: str) -> Iterator[Setting]:
    for name in map(str, config):
        node, key = config._get_node(name), f"{prefix}{name}"
        if key in _HIDDEN or name == "_target_":
            continue
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing() and len(node):
            yield from _settings(node, command, f"{key}.")
        else:
            yield Setting(key, _as_typed(config, name), _kind_of(node), meaning_of(key, command))


def _as_typed(config: DictConfig, name: str) -> str:
    if OmegaConf.is_missing(config, name) and not OmegaConf.is_interpolation(config, name):
        return "???"
    value = OmegaConf.to_container(config, resolve=False)[name]  # type: ignore[call-overload, index]
    return _written(value)


def _written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(each)}" for key, each in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _kind_of(node: Any) -> str:
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Any": ""}
    declared = getattr(node._metadata.ref_type, "__name__", str(node._metadata.ref_type).replace("typing.", ""))
    kind = names.get(declared, "list" if declared.startswith(("list", "List")) else "")
    if not kind:
        value = node._value()
        return "" if isinstance(value, str) else names.get(type(value).__name__, "")
    return f"{kind} or null" if node._metadata.optional else kind
