"""The command line: a command, Hydra's overrides, and one clear line when something is wrong.

Nothing heavy is imported before a command runs.
"""

import importlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from finetune.config.aliases import register_source, rename_overrides
from finetune.config.command_help import command_help
from finetune.config.compose import check_read, command_names, conf_dir, register
from finetune.config.error_messages import error_message
from finetune.config.quoting import quote_value, unquote_value
from finetune.config.resolve import resolve
from finetune.config.settings.root_table import ROOTS
from finetune.config.trust import trust_folders
from finetune.config.typed_text import quote_text
from finetune.errors import ConfigError, FinetuneError, nearest
from finetune.runtime.control_characters import escape_controls, escape_on_screen
from finetune.runtime.log_files import log_file, log_to_file
from finetune.runtime.threads import set_openmp_wait_policy

log = logging.getLogger(__name__)

DEFAULT = "train"
COMMANDS = {
    "train": "finetune.commands.train:train",
    "evaluate": "finetune.commands.evaluate:evaluate",
    "predict": "finetune.commands.predict:predict",
    "benchmark": "finetune.commands.benchmark:benchmark",
    "features": "finetune.commands.features:features",
    "rank": "finetune.commands.rank:rank",
    "runs": "finetune.commands.runs:runs",
    "sweep": "finetune.commands.sweep:run_sweep",
    "audit": "finetune.commands.audit:audit",
    "preview": "finetune.commands.preview:preview",
    "compare": "finetune.commands.compare:compare",
    "report": "finetune.commands.report:report",
    "explain": "finetune.commands.explain:explain",
    "crossval": "finetune.commands.crossval:run_crossval",
    "ensemble": "finetune.commands.ensemble:ensemble",
    "pretrain": "finetune.commands.pretrain:pretrain",
}
# keys whose values are conditions, which Hydra's grammar cannot read unless they are in quotes of their own
CONDITIONS = ("filter", "compare.gate")
# settings that would be taken for groups of the same name, by command
_SHORT = {
    "compare": {"sweep": "compare.sweep"},
    "ensemble": {"sweep": "ensemble.sweep", "cv": "ensemble.cv"},
}
_SEARCHES = ("sweep", "crossval")  # read their own command line, which says what varies
# what needs no data, so that its values may be missing
SHOWING_ACTIONS = ("show", "clear")
# where a command looks for the runs that it continues, if not in runs
RUN_FOLDERS = {"pretrain": "pretrained"}
# flags of Hydra's that only show something
SHOWING = ("--cfg", "-c", "--help", "-h", "--hydra-help", "--info", "-i", "--version", "--shell-completion", "-sc")


def main() -> None:
    """Run the command line of this process and exit with the code of its outcome."""
    set_openmp_wait_policy(os.environ)
    try:
        register()
        register_source()
        sys.argv[1:] = rename_overrides(with_config_name(sys.argv[1:]))
        several = named_command(sys.argv[1:]) in _SEARCHES or has_flag(("--multirun", "-m"), sys.argv[1:])
        sys.argv[1:] = quote_text(sys.argv[1:], several=several)
        if (command := named_command(sys.argv[1:])) in _SEARCHES:
            trust_folders("trust=true" in sys.argv[1:])  # which is no part of what is searched
            sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "trust=true"]
            sys.exit(search(command, sys.argv[1:]))
        if is_multirun(sys.argv[1:]):
            from finetune.commands.multirun import run_multirun

            sys.exit(run_multirun(sys.argv[1:]))
        sys.argv[1:] = arguments = with_resumed_folder(sys.argv[1:])
        sys.exit(show_help(arguments) if has_flag(("--help", "-h"), arguments) else run_hydra())
    except KeyboardInterrupt:
        print_error("Interrupted.")
        sys.exit(130)
    except FinetuneError as error:
        print_error(str(error))
        sys.exit(error.exit_code)


def named_command(arguments: Sequence[str]) -> str:
    """Return the root configuration that a command line names."""
    return str(get_args_parser().parse_known_args(list(arguments))[0].config_name)


def search(command: str, arguments: Sequence[str]) -> int:
    """Run what searches, or show its configuration, and return the exit code."""
    if has_flag(SHOWING, arguments):
        from finetune.search.command_line import without_sweeps

        sys.argv[1:] = without_sweeps(arguments)
        return show_help(sys.argv[1:]) if has_flag(("--help", "-h"), arguments) else run_hydra()
    return int(load_command(command)(arguments))


def load_command(command: str) -> Callable[..., Any]:
    """Return the function of a command."""
    module, _, name = COMMANDS[command].partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), name)
    escape_on_screen()
    return loaded


def run_hydra() -> int:
    """Compose the configuration and run the command; return the exit code."""
    outcome: list[int] = []
    os.environ["HYDRA_FULL_ERROR"] = "1"
    task = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=DEFAULT)(_task(outcome))
    try:
        task()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(error_message(error, sys.argv[1:])) from error
    except OSError as error:  # of Hydra's, before the command: it makes the folder
        raise ConfigError(
            f"The run's folder cannot be made ({error.strerror}: {error.filename}). Set runs= to another."
        ) from error
    return outcome[0] if outcome else 0


def show_help(arguments: Sequence[str]) -> int:
    """Print the help of a command, or of all of them where none was named, and return the exit code.

    Hydra's own help lists all groups of all packages before it prints any, which takes longer than everything else.
    """
    asked = get_args_parser().parse_args(arguments)
    extra = [f"hydra.searchpath=['file://{Path(asked.config_dir).absolute()}']"] if asked.config_dir else []
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = hydra.compose(asked.config_name or DEFAULT, [*asked.overrides, *extra], return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            if asked.config_name in command_names():
                print(command_help(asked.config_name, config))
            else:
                print(Template(config.hydra.help.template).safe_substitute())
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(error_message(error, arguments)) from error
    return 0


def _task(outcome: list[int]) -> Callable[[DictConfig], None]:
    def task(config: DictConfig) -> None:
        outcome.append(run_command(config))

    return task


def run_command(config: DictConfig) -> int:
    """Run the command of a composed configuration and return the exit code.

    An error of the user's is one line; another one is one line on the screen and a traceback in the run's log.
    """
    command = str(config.get("verb", DEFAULT))
    if command not in COMMANDS:
        raise ConfigError(f"verb={command} is not known. Use one of {', '.join(COMMANDS)}.{nearest(command, COMMANDS)}")
    trust_folders(bool(config.get("trust")))
    try:
        check_settings(config, command)
        load_command(command)(config)
    except FinetuneError as error:
        log_to_file(str(error))
        print_error(str(error))
        discard_empty_folder()
        return error.exit_code
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # noqa: BLE001 - the last resort: whatever a run dies of is logged whole
        log_to_file("The run failed", error)
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        print_error(f"The run failed: {type(error).__name__}: {first} The traceback is in {log_file() or 'no file'}.")
        return 1
    return 0


def check_settings(config: DictConfig, command: str) -> None:
    """Check a configuration before anything heavy is imported; that of a resumed run is the stored one."""
    if config.get("action") in SHOWING_ACTIONS or config.get("resume") is not None:
        check_read(config)
        check_named_runs(config)
        return
    resolve(config, ROOTS[command], list(HydraConfig.get().overrides.task))
    if "trust" in config:
        check_named_runs(config)


def check_named_runs(config: DictConfig) -> None:
    """Check what the stored configurations of the runs that a command reads would make, before torch is imported."""
    from finetune.runs.run import Run

    named = config.get("runs")
    several = list(named) if isinstance(named, ListConfig) else []
    root = Path(str(named)) if isinstance(named, str) else Path("runs")
    for reference in [config.get("run"), config.get("resume"), *several]:
        try:
            run = Run.find(str(reference), root)
        except FinetuneError:  # the command says what is there
            continue
        _ = run.config


def discard_empty_folder() -> None:
    """Remove the folder that Hydra has made for a run which was refused before it began."""
    file = log_file()
    if file is None or (file.parent / "run.json").exists() or not (file.parent / ".hydra").is_dir():
        return
    if {entry.name for entry in file.parent.iterdir()} <= {".hydra", file.name}:
        shutil.rmtree(file.parent)
        for parent in (file.parent.parent, file.parent.parent.parent):
            if not any(parent.iterdir()):
                parent.rmdir()


def print_error(message: str) -> None:
    """Print one line to standard error."""
    print(f"finetune: {escape_controls(' '.join(message.split()))}", file=sys.stderr)


def with_config_name(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a leading command rewritten to Hydra's --config-name.

    It is rewritten, not removed, because a distributed run starts its other ranks with the same arguments.

    Raises:
        ConfigError: The first word is no command.
    """
    arguments = [quoted_condition(argument) for argument in arguments]
    if not arguments or arguments[0].startswith("-") or "=" in arguments[0] or arguments[0].startswith("~"):
        return arguments
    word, *rest = arguments
    parsed = get_args_parser().parse_known_args(rest)[0]
    own = [file.stem for file in Path(parsed.config_dir).glob("*.yaml")] if parsed.config_dir else []
    if word not in (*command_names(), *own):
        raise ConfigError(
            f"'{word}' is not a command ({', '.join(command_names())}).{nearest(word, (*command_names(), *own))} An "
            "override is typed as key=value."
        )
    return ["--config-name", word, *(whole_key(argument, _SHORT.get(word, {})) for argument in rest)]


def whole_key(argument: str, names: Mapping[str, str]) -> str:
    """Return an argument with the whole name of its setting."""
    key, equals, value = argument.partition("=")
    return f"{names.get(key, key)}{equals}{value}"


def quoted_condition(argument: str) -> str:
    """Return an argument whose value is a condition in quotes, so that Hydra takes it as it was typed."""
    key, _, value = argument.partition("=")
    if key not in CONDITIONS or value in ("", "null") or value[0] in "\"'":
        return argument
    return f"{key}={quote_value(value)}"


def with_resumed_folder(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `resume=` made an absolute folder, which the run's output goes to again."""
    values = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
    reference = unquote_value(values.get("resume", "null"))
    if reference in ("null", "", "None") or "hydra.run.dir" in values:
        return list(arguments)
    from finetune.runs.run import Run

    command = str(get_args_parser().parse_known_args(list(arguments))[0].config_name)
    folder = Run.find(reference, Path(unquote_value(values.get("runs", RUN_FOLDERS.get(command, "runs"))))).path
    rest = [argument for argument in arguments if not argument.startswith("resume=")]
    quoted = quote_value(folder)
    return [*rest, f"resume={quoted}", f"hydra.run.dir={quoted}", "hydra.output_subdir=null"]


def is_multirun(arguments: Sequence[str]) -> bool:
    """Return whether several runs are asked for, and not just something shown."""
    return has_flag(("--multirun", "-m"), arguments) and not has_flag(SHOWING, arguments)


def has_flag(flags: Sequence[str], arguments: Sequence[str]) -> bool:
    """Return whether one of the flags was typed."""
    return any(argument.split("=")[0] in flags for argument in arguments)
