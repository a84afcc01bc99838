"""From the command line of a sweep to its parts: the space, how it is searched, and what its trials share."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import OmegaConf

from finetune.config.aliases import rename_space
from finetune.config.compose import conf_dir, folder_name, to_dict
from finetune.config.directions import direction_of
from finetune.config.error_messages import options_of
from finetune.config.settings.checked import Checked, typed
from finetune.config.settings.run_groups import LoggerSettings, WandbSettings
from finetune.config.settings.search_groups import PoolSettings, SpaceSettings, SweepSettings
from finetune.errors import ConfigError, nearest
from finetune.runs.sweep_folder import SweepFolder
from finetune.search.command_line import Request
from finetune.search.pools.jobs import Pool
from finetune.search.spaces.grammar import build_space, parse_all
from finetune.search.spaces.space import SearchSpace
from finetune.search.spaces.space_checks import check_space
from finetune.search.study.loop import FailurePolicy
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
        logger: The settings of logger.wandb; None where trials are not tracked.
        page: Whether plots are drawn in the end.
    """

    request: Request
    space: SearchSpace
    settings: SearchSettings
    policy: FailurePolicy
    trials: int
    trial_timeout: float | None
    pool: PoolSettings
    name: str
    root: str
    storage: str | None
    in_process: str
    logger: WandbSettings | None
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
    own = typed(_OwnSettings, to_dict(OmegaConf.masked_copy(cfg, [entry.name for entry in fields(_OwnSettings)])))
    sweep = own.sweep

    def base(key: str) -> str | None:
        value = choices.get(key, OmegaConf.select(cfg, key, throw_on_missing=False))
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    space = read_space(request, own.space, base)
    settings = _search_settings(sweep, monitor=str(cfg.monitor), mode=cfg.mode)
    check_search_settings(settings, space)
    check_space(space, request.trial, lambda key: (conf_dir() / key).is_dir())
    here = sweep.in_process.lower()
    if here not in IN_PROCESS:
        near = nearest(here, IN_PROCESS)
        raise ConfigError(f"sweep.in_process={sweep.in_process} is not one of {', '.join(IN_PROCESS)}.{near}")
    return SweepPlan(
        request=request,
        space=space,
        settings=settings,
        policy=FailurePolicy(sweep.on_failure, sweep.retries, sweep.timeout),
        trials=sweep.trials,
        trial_timeout=own.pool.time_limit if sweep.trial_timeout is None else sweep.trial_timeout,
        pool=own.pool,
        name=folder_name(sweep.name) if sweep.name else _name_of(choices, space),
        root=sweep.folder,
        storage=sweep.storage,
        in_process=here,
        logger=own.logger.wandb,
        page=sweep.page,
    )


@dataclass(frozen=True)
class _OwnSettings(Checked):
    """What is the sweep's own; the settings of its trials may lack what varies."""

    sweep: SweepSettings
    space: SpaceSettings
    pool: PoolSettings
    logger: LoggerSettings


def read_space(request: Request, space: SpaceSettings, base: Callable[[str], str | None]) -> SearchSpace:
    """Return the space of the group space and of what was typed.

    Args:
        request: The command line.
        space: The group.
        base: Returns the value of a setting that does not vary, as it would be typed.
    """
    arguments = request.flags
    return build_space(
        rename_space(space.params),
        rename_space(space.when),
        [*request.fixed, *request.swept],
        options=lambda group: options_of(group, arguments),
        base=base,
    )


def _search_settings(sweep: SweepSettings, *, monitor: str, mode: Any) -> SearchSettings:
    """Return how a space is searched."""
    return SearchSettings(
        objectives=read_objectives(
            sweep.metric, sweep.direction, monitor=monitor, mode=direction_of(monitor, mode, setting="mode")
        ),
        sampler=sweep.sampler,
        sampler_options=sweep.sampler_options,
        pruner=sweep.pruner,
        pruner_options=sweep.pruner_options,
        budget={name: most for name, most in sweep.budget.items() if most is not None},
        seed=sweep.seed,
    )


def _name_of(choices: Mapping[str, Any], space: SearchSpace) -> str:
    """Return the name of a sweep's folder: model, strategy and what varies."""
    keys = [each.key.rsplit(".", 1)[-1] for each in space.dimensions]
    parts = [str(choices[name]) for name in ("model", "strategy") if name not in keys]
    return folder_name(*parts, *keys) if len(parts) + len(keys) > 1 else folder_name("sweep", *keys)
