"""From the configuration of a sweep to typed parts: the space, how it is searched, and what its trials share.

It decides which key goes to which argument and checks all before anything is written; running is left to `sweep`.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from finetune.config.compose import check_numbers, conf_dir, folder_name
from finetune.config.error_messages import options_of
from finetune.errors import ConfigError, nearest
from finetune.runs.sweep_folder import SweepFolder
from finetune.search.command_line import Request
from finetune.search.pools.jobs import Pool
from finetune.search.spaces.grammar import build_space, parse_all
from finetune.search.spaces.space import SearchSpace
from finetune.search.spaces.space_checks import check_space
from finetune.search.study.loop import Policy
from finetune.search.study.samplers import SearchSettings, check_search_settings, read_objectives
from finetune.search.study.study import Search
from finetune.search.study.trials import StudyLocation

IN_PROCESS = ("auto", "true", "false")
PROGRAM = (sys.executable, "-m", "finetune")


@dataclass(frozen=True)
class SweepPlan:
    """A sweep, ready to be run.

    Attributes:
        request: The command line.
        space: What varies.
        settings: How it is searched.
        policy: When it ends.
        trials: How many, in all.
        trial_timeout: Seconds of a trial; None for no limit.
        pool: Settings of the group pool.
        name: Of the folder.
        root: Folder that holds the sweeps.
        storage: As typed; None for a file in the folder.
        in_process: auto, true or false.
        logger: The keys of logger.wandb; None where trials are not tracked.
        page: Whether plots are drawn in the end.
    """

    request: Request
    space: SearchSpace
    settings: SearchSettings
    policy: Policy
    trials: int
    trial_timeout: float | None
    pool: Mapping[str, Any]
    name: str
    root: str
    storage: str | None
    in_process: str
    logger: Mapping[str, Any] | None
    page: bool

    @property
    def fixed(self) -> tuple[str, ...]:
        """What all trials share."""
        return (*self.request.fixed, *self.space.fixed)

    def describe(self) -> dict[str, str]:
        """Return what decides which sweep it is: the space, and what all trials share."""
        shared = {each.key_or_group: str(each.input_line) for each in parse_all(self.request.fixed)}
        return {**shared, **self.space.describe()}


@dataclass(frozen=True)
class Sweep:
    """A sweep that is about to run, or to go on.

    Attributes:
        plan: What was asked for.
        folder: Its folder.
        place: Where its study is.
        search: Its study.
        pool: Where its trials run.
        here: Whether its trials run in this process.
        nameless: Whether it is this process alone that runs it.
    """

    plan: SweepPlan
    folder: SweepFolder
    place: StudyLocation
    search: Search
    pool: Pool
    here: bool
    nameless: bool = True


def make_sweep_plan(request: Request, root: str = "sweep") -> SweepPlan:
    """Return the plan of a command line, checked.

    Args:
        request: The command line.
        root: The root configuration, which has the groups sweep, space and pool.

    Raises:
        ConfigError: It cannot be run.
    """
    cfg = request.compose(root, [*request.own, *request.fixed], hydra=True)
    choices = {str(key): value for key, value in cfg.hydra.runtime.choices.items()}
    check_numbers(cfg)
    sweep: dict[str, Any] = _plain(cfg, "sweep")
    space = read_space(request, cfg, choices)
    settings = _read_settings(sweep, monitor=str(cfg.monitor), mode=cfg.mode)
    check_search_settings(settings, space)
    check_space(space, request.check_trial, lambda key: (conf_dir() / key).is_dir())
    here = str(sweep["in_process"]).lower()
    if here not in IN_PROCESS:
        near = nearest(here, IN_PROCESS)
        raise ConfigError(f"sweep.in_process={sweep['in_process']} is not one of {', '.join(IN_PROCESS)}.{near}")
    pool = _plain(cfg, "pool")
    return SweepPlan(
        request=request,
        space=space,
        settings=settings,
        policy=Policy(sweep["on_failure"], sweep["retries"], sweep["timeout"]),
        trials=sweep["trials"],
        trial_timeout=checked_limit(sweep["trial_timeout"], pool.get("time_limit")),
        pool=pool,
        name=folder_name(sweep["name"]) if sweep["name"] else _name_of(choices, space),
        root=sweep["folder"],
        storage=sweep["storage"],
        in_process=here,
        logger=_plain(cfg, "logger").get("wandb"),
        page=sweep["page"],
    )


def _plain(cfg: DictConfig, key: str) -> dict[str, Any]:
    """Return a group as a plain dictionary."""
    found = OmegaConf.to_container(cfg[key], resolve=True, throw_on_missing=True)
    assert isinstance(found, dict)
    return {str(name): value for name, value in found.items()}


def read_space(request: Request, cfg: DictConfig, choices: Mapping[str, Any]) -> SearchSpace:
    """Return the space of a configuration and of what was typed."""

    def base(key: str) -> str | None:
        value = choices.get(key, OmegaConf.select(cfg, key, throw_on_missing=False))
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    space = _plain(cfg, "space")
    arguments = request.flags
    return build_space(
        space["params"],
        space["when"],
        [*request.fixed, *request.swept],
        options=lambda group: options_of(group, arguments),
        base=base,
    )


def _read_settings(sweep: Mapping[str, Any], *, monitor: str, mode: Any) -> SearchSettings:
    """Return how a space is searched."""
    if mode not in ("max", "min"):
        raise ConfigError(f"mode={mode} is not known. Use max or min.{nearest(str(mode), ('max', 'min'))}")
    return SearchSettings(
        objectives=read_objectives(sweep["metric"], sweep["direction"], monitor=monitor, mode=mode),
        sampler=sweep["sampler"],
        sampler_options=sweep["sampler_options"],
        pruner=sweep["pruner"],
        pruner_options=sweep["pruner_options"],
        budget={name: most for name, most in sweep["budget"].items() if most is not None},
        seed=sweep["seed"],
    )


def checked_limit(trial_timeout: float | None, pool_limit: float | None) -> float | None:
    """Return how long a trial may take: what the sweep says, else what the pool says.

    Raises:
        ConfigError: It is no time.
    """
    limit = pool_limit if trial_timeout is None else trial_timeout
    if limit is not None and limit <= 0:
        raise ConfigError(f"sweep.trial_timeout={limit} must be a number of seconds above 0.")
    return limit


def _name_of(choices: Mapping[str, Any], space: SearchSpace) -> str:
    """Return the name of a sweep's folder: model, strategy and what varies."""
    keys = [each.key.rsplit(".", 1)[-1] for each in space.dimensions]
    parts = [str(choices[name]) for name in ("model", "strategy") if name not in keys]
    return folder_name(*parts, *keys) if len(parts) + len(keys) > 1 else folder_name("sweep", *keys)
