"""Configurations of many trials that differ in a few values: those of the same options are composed once."""

import copy
from collections.abc import Mapping, Sequence

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finetune.config.compose import conf_dir
from finetune.config.resolve import resolve
from finetune.config.settings.roots import TrainSettings
from finetune.errors import ConfigError
from finetune.search.command_line import Request
from finetune.search.spaces.grammar import parse_all
from finetune.search.spaces.space import SearchSpace, SettingValue


class TrialConfigs:
    """Composes trials of a space."""

    def __init__(self, request: Request, space: SearchSpace) -> None:
        """Compose nothing yet."""
        self.request = request
        self.space = space
        self.known: dict[tuple[str, ...], DictConfig] = {}

    def settings(self, values: Mapping[str, SettingValue]) -> TrainSettings:
        """Return a trial's settings.

        Raises:
            ConfigError: A value does not fit its setting.
        """
        overrides = parse_all(self.space.overrides(values))
        options = tuple(str(each.input_line) for each in overrides if (conf_dir() / each.key_or_group).is_dir())
        config = copy.deepcopy(self.composed(options))
        try:
            for each in overrides:
                if each.input_line not in options:
                    OmegaConf.update(config, each.key_or_group, each.value(), force_add=each.is_add())
            return resolve(config, TrainSettings, (*self.request.fixed, *self.space.fixed))
        except OmegaConfBaseException as error:
            raise ConfigError(str(error).splitlines()[0]) from error

    def composed(self, options: Sequence[str]) -> DictConfig:
        """Return the configuration of some options, with the settings that do not vary."""
        key = tuple(options)
        if key not in self.known:
            self.known[key] = self.request.compose("train", [*self.request.fixed, *self.space.fixed, *options])
        return self.known[key]
