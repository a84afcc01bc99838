"""docs/reference/configuration.md: all settings of all commands and groups, generated from conf/ and its schemas.

python -m finetune.config.reference_page docs/reference/configuration.md
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune.config.command_help import own_settings
from finetune.config.compose import command_names, conf_dir, register
from finetune.config.settings_reference import (
    Setting,
    command_groups,
    compose_command,
    config_groups,
    list_settings,
    option_names,
    read_conf_file,
)

HEADER = """# Configuration

Every setting of every command: key, default, type, meaning, and the commands that read it. This page is generated from
`conf/` by `make reference`; a test fails when it is stale. `finetune COMMAND --help` prints the same for one command,
`finetune COMMAND --cfg job` the composed configuration.

Type a setting as `key=value` and an option as `group=option`. `null` means what the meaning says of it, `???` that the
setting must be typed. `${key}` takes the value of another setting.
"""


def reference_page() -> str:
    """Return the page as Markdown."""
    configs = {command: compose_command(command) for command in command_names()}
    readers: dict[str, list[str]] = defaultdict(list)
    for command, config in configs.items():
        for setting in list_settings(config, command):
            readers[setting.key].append(command)
    lines = [HEADER, "## Commands", ""]
    for command, config in configs.items():
        groups = command_groups(command)
        own = [setting for setting in own_settings(command, config) if setting.key.split(".")[0] not in groups]
        lines += [f"### {command}", "", read_conf_file(conf_dir() / f"{command}.yaml").about, ""]
        lines += [f"Groups: {', '.join(f'[`{name}`](#{name})' for name in groups)}.", ""] if groups else []
        lines += [*_table(own, readers), ""]
    lines += ["## Groups", ""]
    for group in config_groups():
        lines += [f"### {group}", "", *_options(group), ""]
        users = [command for command in configs if group in command_groups(command)]
        found = list_settings(configs[users[0]], users[0]) if users else ()
        settings = [each for each in found if each.key.startswith(f"{group}.")]
        lines += [*_table(settings, readers), ""] if settings else []
    return "\n".join(lines).rstrip() + "\n"


def _options(group: str) -> Iterator[str]:
    yield "| option | what it selects | what it sets |"
    yield "| --- | --- | --- |"
    for name in option_names(group):
        file = read_conf_file(conf_dir() / group / f"{name}.yaml")
        values = ", ".join(f"`{key}={value}`" for key, value in file.values.items() if value)
        yield f"| `{group}={name}` | {_cell(file.about)} | {_cell(values)} |"


def _table(settings: Sequence[Setting], readers: dict[str, list[str]]) -> Iterator[str]:
    yield "| key | default | type | meaning | read by |"
    yield "| --- | --- | --- | --- | --- |"
    for each in settings:
        used = "all runs" if {"train", "sweep", "crossval"} <= set(readers[each.key]) else ""
        others = [name for name in readers[each.key] if not used or name not in ("train", "sweep", "crossval")]
        names = ", ".join(filter(None, [used, *others]))
        yield f"| `{each.key}` | `{_cell(each.default)}` | {each.kind} | {_cell(each.meaning)} | {names} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    register()
    Path(sys.argv[1]).write_text(reference_page(), encoding="utf-8")
