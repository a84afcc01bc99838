"""The help of a command: what it does, how it is called, and its own settings with meaning, type and default."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence

from omegaconf import DictConfig

from finetune.config.settings_reference import (
    Setting,
    command_groups,
    list_settings,
    option_names,
    read_conf_file,
    root_files,
)

EXIT_CODES = "0 done; 1 failed, see the log; 2 the configuration or the data is wrong; 130 interrupted; 143 ended"
RUN = "train"  # whose help lists the settings of all groups that runs have
LABEL = 32  # columns for key and default


def command_help(command: str, config: DictConfig) -> str:
    """Return the help of a command.

    Args:
        command: Its name.
        config: Its configuration, composed.
    """
    file = read_conf_file(root_files(command)[0])
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    lines = [*textwrap.wrap(f"finetune {command}: {file.about}", width), "", *(f"  {each}" for each in file.commands)]
    lines += ["", "Settings (key=default: meaning)", *_described(own_settings(command, config), width)]
    if groups := command_groups(command):
        lines += ["", "Groups (choose with group=option)"]
    for name in groups:
        options = f"{name:<10} {', '.join(option_names(name))}"
        lines += textwrap.wrap(options, width, initial_indent="  ", subsequent_indent=" " * 13)
    if shared := shared_groups(command):
        lines += [
            "",
            *textwrap.wrap(f"Settings of {', '.join(shared)} are those of a run: finetune {RUN} --help", width),
        ]
    lines += ["", f"Exit codes: {EXIT_CODES}", f"The whole configuration: finetune {command} --cfg job"]
    return "\n".join(lines)


def shared_groups(command: str) -> list[str]:
    """Return the groups whose settings a command shares with runs; train lists them itself."""
    return [] if command == RUN else [name for name in command_groups(command) if name in command_groups(RUN)]


def own_settings(command: str, config: DictConfig) -> list[Setting]:
    """Return the settings of its own files and of its own groups."""
    files = root_files(command) if command == RUN else root_files(command)[:1]
    heads = {key.split(".")[0] for path in files for key in read_conf_file(path).values}
    heads = (heads | set(command_groups(command))) - set(shared_groups(command))
    return [setting for setting in list_settings(config, command) if setting.key.split(".")[0] in heads]


def _described(settings: Sequence[Setting], width: int) -> Iterator[str]:
    for setting in settings:
        label = f"  {setting.key}={setting.default}"
        meaning = setting.meaning + (f" ({setting.kind})" if setting.kind else "")
        if len(label) >= LABEL:
            yield label
            label = ""
        yield from textwrap.wrap(meaning.strip(), width, initial_indent=f"{label:<{LABEL}} ",
                                 subsequent_indent=" " * (LABEL + 1)) or ([label] if label else [])  # fmt: skip
