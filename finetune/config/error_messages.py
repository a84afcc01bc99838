"""Hydra's and OmegaConf's errors, told in one line with the nearest right spelling."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finetune.config.compose import conf_dir
from finetune.config.foreign_words import typed_for
from finetune.config.quoting import quote_value
from finetune.errors import nearest

_WANTED = {"Float": "a number", "Integer": "a whole number", "bool": "true or false"}


def error_message(error: BaseException, arguments: Sequence[str]) -> str:
    """Return what is wrong, what was expected and what to type.

    Args:
        error: What Hydra or OmegaConf raised.
        arguments: The command line.
    """
    while error.__cause__ is not None and isinstance(error.__cause__, HydraException | OmegaConfBaseException):
        error = error.__cause__
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    option = re.search(r"Could not find '([\w/]+)/([^']+)'|In '.*': Could not find '([\w/]+)/([^']+)'", text)
    if option:
        group, name = option.group(1) or option.group(3), option.group(2) or option.group(4)
        choices = options_of(group, arguments)
        other = f" For another model of timm type: model=timm model.name={name}" if group == "model" else ""
        return f"{group}={name} is not an option (there is: {', '.join(choices)}).{nearest(name, choices)}{other}"
    key = re.search(r"(?:Key|key) '([\w.]+)' (?:is )?not in|Could not override '([\w./@]+)'", text)
    if key:
        return unknown_key(full_key(text, key), arguments)
    group_match = re.search(r"Could not override '([\w./]+)'\.?\s*(?:\n|.)*No match in the defaults list", text)
    if group_match:
        return unknown_key(group_match.group(1), arguments)
    wrong = re.search(r"Value '(.*)' (?:of type '\w+' could not be converted to|is not a valid) (\w+)", text)
    place = re.search(r"full_key: (\S+)", text)
    if wrong and place and wrong[2] in _WANTED:
        return f"{place[1]}={wrong[1]} must be {_WANTED[wrong[2]]}."
    if unread := unreadable_override(arguments):
        return unread
    first = lines[0] if lines else type(error).__name__
    detail = next((line for line in lines if line.startswith("full_key:")), "")
    return f"{first} {f'({detail[10:].strip()})' if detail else ''}".strip()


def unreadable_override(arguments: Sequence[str]) -> str:
    """Return a line about an override that Hydra's grammar cannot read, with how it is typed; empty for none."""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or argument.startswith("-"):
            continue
        try:
            OverridesParser.create().parse_override(argument)
        except HydraException:
            typed = f'"{name}={quote_value(value)}"'
            return f"{argument} has characters that mean something else. Put the value into quotes: {typed}"
    return ""


def full_key(text: str, key: "re.Match[str]") -> str:
    """Return the whole dotted name of a key that an error complains of."""
    whole = re.search(r"full_key: ([\w.\[\]]+)", text)
    overridden = re.search(r"Could not override '([\w./@]+)'", text)
    return (overridden or whole or key).group(1) or key.group(0)


def unknown_key(key: str, arguments: Sequence[str]) -> str:
    """Return a line about a key that does not exist."""
    values = {name.lstrip("+~"): value for name, _, value in (argument.partition("=") for argument in arguments)}
    if found := typed_for(key, values.get(key, "")):
        return f"There is no setting '{key}': {found}"
    known = known_keys(arguments)
    if key.split(".")[0] == "pool" and "pool.kind" not in known:
        return f"'{key}' says where the jobs of a multirun run. Type -m with it: finetune -m pool.devices=auto seed=0,1"
    head, _, last = key.rpartition(".")
    siblings = [name for name in known if name.rpartition(".")[0] == head]
    near = nearest(last, [name.rpartition(".")[2] for name in siblings])
    if near and head:
        near = near.replace("'", f"'{head}.", 1)
    near = near or nearest(key, known) or nearest(key.split(".")[0], {name.split(".")[0] for name in known})
    return f"There is no setting '{key}'.{near} See all with: finetune --cfg job"


def options_of(group: str, arguments: Sequence[str]) -> list[str]:
    """Return the options of a group."""
    own = get_args_parser().parse_known_args(list(arguments))[0].config_dir
    folders = [conf_dir() / group, *([Path(own) / group] if own else [])]
    return sorted({file.stem for folder in folders for file in folder.glob("*.yaml") if not file.stem.startswith("_")})


def known_keys(arguments: Sequence[str]) -> list[str]:
    """Return the groups, and the dotted names of all settings of the configuration without its value overrides."""
    parsed = get_args_parser().parse_known_args(list(arguments))[0]
    config_name = parsed.config_name or "train"
    groups = [folder.name for folder in conf_dir().iterdir() if folder.is_dir()] if config_name == "train" else []
    choices = [text for text in parsed.overrides if text.partition("=")[0] in groups]
    GlobalHydra.instance().clear()
    for overrides in (choices, []):
        try:
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                config = compose(config_name, overrides)
        except (HydraException, OmegaConfBaseException):
            continue
        return [*groups, *dotted(config)]
    return groups


def dotted(config: DictConfig, prefix: str = "") -> Iterable[str]:
    """Yield the dotted names of all settings."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    stack = [(prefix, plain)]
    while stack:
        place, node = stack.pop()
        for key, value in node.items():
            yield f"{place}{key}"
            if isinstance(value, dict):
                stack.append((f"{place}{key}.", value))
