"""The command line of a sweep, taken apart: what is the sweep's own, what all trials share, and what varies."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from finetune.config.aliases import move_strays, rename_overrides
from finetune.config.compose import conf_dir
from finetune.config.error_messages import error_message
from finetune.config.quoting import quote_value
from finetune.config.resolve import resolve
from finetune.config.settings.roots import TrainSettings
from finetune.config.trust import check_stored_overrides
from finetune.errors import ConfigError
from finetune.search.spaces.grammar import parse_all

_OWN = ("sweep", "space", "pool", "resume", "join", "export")
# what may be typed again when a sweep goes on
_CHANGEABLE = (
    "resume", "join", "pool", "sweep.trials", "sweep.timeout", "sweep.trial_timeout", "sweep.on_failure",
    "sweep.retries", "sweep.folder", "sweep.name",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A sweep's command line.

    Attributes:
        own: Overrides of the sweep itself.
        fixed: Overrides that all trials share.
        swept: Overrides with several values.
        config_dir: The user's own folder of configurations, absolute; None for none.
    """

    own: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    swept: tuple[str, ...] = ()
    config_dir: str | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of Hydra's that trials need."""
        return ("--config-dir", self.config_dir) if self.config_dir else ()

    def compose(self, name: str, overrides: Sequence[str], *, hydra: bool = False) -> DictConfig:
        """Return the configuration of a root and overrides.

        Raises:
            ConfigError: They do not go together.
        """
        search = [f"hydra.searchpath=[{quote_value(f'file://{self.config_dir}')}]"] if self.config_dir else []
        try:
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                config = compose(name, [*search, *overrides], return_hydra_config=hydra)
        except (HydraException, OmegaConfBaseException) as error:
            arguments = ["--config-name", name, *self.flags, *overrides]
            raise ConfigError(error_message(error, arguments)) from error
        move_strays(config)
        return config

    def trial(self, overrides: Sequence[str]) -> TrainSettings:
        """Return the settings of a trial.

        Raises:
            ConfigError: They are none that can be trained, as far as is known without the images.
        """
        config = self.compose("train", [*self.fixed, *overrides])
        settings = resolve(config, TrainSettings, self.fixed)
        if settings.recipe.name != "none":
            raise ConfigError(
                f"recipe={settings.recipe.name} chooses for one run, and several are wanted here. Leave "
                "it out, and name the settings that all of them share."
            )
        return settings

    def words(self) -> dict[str, Any]:
        """Return what decides which sweep is meant, before anything else is known."""
        cfg = self.compose("sweep", self.own)
        named = {"resume": cfg.resume, "join": cfg.join, "export": cfg.export}
        return {**named, "folder": str(cfg.sweep.folder), "name": cfg.sweep.name}

    def spaces(self) -> tuple[str, ...]:
        """Return the overrides that choose a space."""
        return tuple(str(each.input_line) for each in parse_all(self.own) if each.key_or_group.split(".")[0] == "space")

    def searching(self, stored: "Request") -> "Request":
        """Return the request that another would be with what was typed in its place."""
        keys = {each.key_or_group for each in parse_all([*self.fixed, *self.swept])}
        fixed, swept = (
            tuple(str(each.input_line) for each in parse_all(lines) if each.key_or_group not in keys)
            for lines in (stored.fixed, stored.swept)
        )
        spaces = self.spaces() or stored.spaces()
        others = tuple(line for line in stored.own if line not in stored.spaces())
        return replace(stored, own=(*others, *spaces), fixed=(*fixed, *self.fixed), swept=(*swept, *self.swept))

    def to_json(self) -> dict[str, Any]:
        """Return the request as it is kept."""
        return asdict(self)

    def continued(self, typed: "Request") -> "Request":
        """Return this request, which a sweep was begun with, and what was typed to go on with it.

        Raises:
            ConfigError: What was typed would make it another sweep.
        """
        own = [line for line in typed.own if line not in typed.spaces()]
        for override in parse_all(own):
            key = override.key_or_group
            if not any(key == known or key.startswith(f"{known}.") for known in _CHANGEABLE):
                raise ConfigError(
                    f"{override.input_line} cannot be changed when a sweep goes on: it would be another search. Start "
                    "a new one, or leave it out."
                )
        return replace(self, own=(*self.own, *own))


def request_of(record: Mapping[str, Any], place: Path, command: str = "sweep") -> Request:
    """Return the request in the record of a folder.

    Args:
        record: Its content.
        place: The file, for messages.
        command: That it was begun by.

    Raises:
        ConfigError: It is no request of finetune's, or would run code that is none of finetune's.
    """
    stored = record.get("request")
    names = ("own", "fixed", "swept")
    whole = isinstance(stored, Mapping) and all(
        isinstance(stored.get(name), list) and all(isinstance(line, str) for line in stored[name]) for name in names
    )
    if not isinstance(stored, Mapping) or not whole or not isinstance(stored.get("config_dir"), str | None):
        raise ConfigError(f"{place} does not say how it was begun: it is damaged, or none of finetune's. Begin anew.")
    lists = {name: tuple(rename_overrides(stored[name], say=False)) for name in names}
    request = Request(**lists, config_dir=stored["config_dir"])
    for override in parse_all([*request.fixed, *request.swept]):
        check_override(override, is_own=False, command=command)
    check_stored_overrides([*request.own, *request.fixed, *request.swept], request.config_dir, str(place))
    return request


def read_request(arguments: Sequence[str], own_groups: Sequence[str] = _OWN, command: str = "sweep") -> Request:
    """Return what a command line asks for.

    Args:
        arguments: With --config-name, and the command.
        own_groups: Whose settings are the command's own, and not its runs'.
        command: The command.

    Raises:
        ConfigError: A word is not Hydra's grammar, or has no place in a sweep.
    """
    parsed = get_args_parser().parse_args(list(arguments))
    if parsed.multirun:
        raise ConfigError(f"finetune {command} runs many configurations by itself. Leave -m out.")
    own: list[str] = []
    fixed: list[str] = []
    swept: list[str] = []
    for override in parse_all(parsed.overrides):
        is_own = override.key_or_group.split(".")[0] in own_groups
        check_override(override, is_own=is_own, command=command)
        line = str(override.input_line)
        kind = own if is_own else swept if override.is_sweep_override() else fixed
        kind.append(line)
    folder = os.path.abspath(parsed.config_dir) if parsed.config_dir else None
    if folder is not None and not Path(folder).is_dir():
        raise ConfigError(f"--config-dir {folder} is not a folder.")
    return Request(tuple(own), tuple(fixed), tuple(swept), folder)


def check_override(override: Override, *, is_own: bool, command: str) -> None:
    """Check that an override has a place in a sweep, or whatever runs many configurations.

    Raises:
        ConfigError: It has none.
    """
    key, line = override.key_or_group, override.input_line
    if key.startswith(("hydra.", "hydra/")) and not is_own:
        raise ConfigError(f"{line} cannot be used in a {command}: each of its runs has a folder of its own.")
    if is_own and override.is_sweep_override():
        raise ConfigError(f"{line} has several values, and a {command} has one {key}. For two spaces: space=[a,b].")


def without_sweeps(arguments: Sequence[str]) -> list[str]:
    """Return a command line without the settings that vary, so that the rest can be shown."""
    parsed = get_args_parser().parse_args(list(arguments))
    varying = {each.input_line for each in parse_all(parsed.overrides) if each.is_sweep_override()}
    return [argument for argument in arguments if argument not in varying]
