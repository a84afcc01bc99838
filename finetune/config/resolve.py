"""From a configuration to typed settings: the one way for commands, trials, folds, recipes and resumed runs."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from finetune.config.aliases import move_strays
from finetune.config.compose import check_missing, check_read, resumed_config, to_dict
from finetune.config.directions import state_directions
from finetune.config.policies import resolve_policies
from finetune.config.settings.checked import typed
from finetune.config.settings.roots import PartsSettings, PretrainRootSettings, RootSettings, TrainSettings
from finetune.config.trust import own_targets
from finetune.config.upgrade import upgrade
from finetune.errors import ConfigError

log = logging.getLogger(__name__)

R = TypeVar("R", bound=RootSettings)
_OF_RUNS = {"pretrain": PretrainRootSettings}


def resolve(config: DictConfig, root: type[R], words: Sequence[str] = (), *, tell: bool = False) -> R:
    """Return the settings of a composed configuration.

    Args:
        config: As Hydra has composed it.
        root: The settings of its command.
        words: The overrides of the command line, which tell what was asked for from what is a default.
        tell: Whether the log says which settings a policy has changed.

    Raises:
        ConfigError: A value is missing, is not read, is out of range, or contradicts another.
    """
    check_missing(config)
    move_strays(config)
    check_read(config)
    state_directions(config)
    plain = to_dict(config)
    own_targets(plain)
    try:
        return settings_of(plain, root, words, tell=tell)
    except ConfigError as error:
        raise ConfigError(with_typed_keys(str(error), config)) from error


def with_typed_keys(message: str, config: DictConfig) -> str:
    """Return a message about a phase with the key that its value is typed as, where the phase refers to one."""
    for number, phase in enumerate(config.get("strategy", {}).get("phases") or []):
        raw: Any = OmegaConf.to_container(phase, resolve=False) if isinstance(phase, DictConfig) else {}
        for key, node in raw.items():
            if isinstance(node, str) and (reference := re.fullmatch(r"\$\{([\w.]+)\}", node)):
                message = message.replace(f"strategy.phases[{number}].{key}=", f"{reference[1]}=")
    return message


def settings_of(plain: Mapping[str, Any], root: type[R], words: Sequence[str] = (), *, tell: bool = False) -> R:
    """Return the settings of a plain configuration whose references are resolved."""
    content, lines = resolve_policies(dict(plain), words) if issubclass(root, PartsSettings) else (dict(plain), [])
    for line in lines if tell else ():
        log.info("%s", line)
    return typed(root, {**content, "document": content})


def stored_settings(plain: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of a stored run, of whichever version and command, as those of a training.

    Raises:
        ConfigError: It was no training.
    """
    if plain.get("verb") in _OF_RUNS:
        raise ConfigError("A pretraining has no classifier. Name a run of finetune, or of finetune crossval.")
    return settings_of(upgrade(plain), TrainSettings)


def resumed_settings(plain: Mapping[str, Any], root: type[R], words: Sequence[str]) -> R:
    """Return the settings of a stored run that goes on, with what may change typed beside `resume=`."""
    return settings_of(to_dict(resumed_config(upgrade(plain), words)), root, tell=True)
