"""Optuna's samplers and pruners by our names for them, and what each can search."""

import importlib.util
import inspect
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import optuna

from finetune.config.directions import NETWORK_COSTS, Direction, direction_of
from finetune.errors import ConfigError, MissingExtraError, nearest
from finetune.search.spaces.space import SearchSpace

Made = TypeVar("Made")

SAMPLERS: Mapping[str, Callable[..., optuna.samplers.BaseSampler]] = {
    "grid": optuna.samplers.RandomSampler,  # all combinations wait in the study: nothing is left to be drawn
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
}
PRUNERS: Mapping[str, Callable[..., optuna.pruners.BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "asha": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
}
# what keeps to a budget, by itself
CONSTRAINED = ("tpe", "gp", "nsga2")
_OWN = ("seed", "constraints_func", "search_space")
EXCESS = "excess"


@dataclass(frozen=True)
class SearchObjective:
    """What trials are compared by: a validation metric, parameters or latency."""

    name: str
    direction: Direction


@dataclass(frozen=True)
class SearchSettings:
    """How a space is searched.

    Attributes:
        objectives: One, or several to be traded against each other.
        sampler: Name of the sampler.
        sampler_options: Of Optuna's class.
        pruner: Name of the pruner.
        pruner_options: Of Optuna's class.
        budget: The most parameters or latency that a best trial may have.
        seed: Of the search.
    """

    objectives: tuple[SearchObjective, ...]
    sampler: str = "tpe"
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    pruner: str = "none"
    pruner_options: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


def read_objectives(metric: Any, direction: Any, *, monitor: str, mode: Direction) -> tuple[SearchObjective, ...]:
    """Return the objectives.

    Args:
        metric: A name, several, or None for the monitored value.
        direction: max or min, one for each, or None for what suits the metric.
        monitor: The value that decides which epoch of a run is best.
        mode: Whether that is the highest or the lowest.

    Raises:
        ConfigError: A metric is none that may decide, or a direction is none.
    """
    names = [monitor] if metric is None else [metric] if isinstance(metric, str) else [str(name) for name in metric]
    usual: list[Any] = [mode if name == monitor else None for name in names]
    given = usual if direction is None else [direction] if isinstance(direction, str) else list(direction)
    for name in names:
        check_metric(name)
    if len(given) != len(names):
        raise ConfigError(f"sweep.direction has {len(given)} entries for {len(names)} metrics. Give one for each.")
    if len(set(names)) < len(names) or not names:
        raise ConfigError(f"sweep.metric={','.join(names)} must name at least one metric, and each once.")
    return tuple(
        SearchObjective(name, direction_of(name, each, setting="sweep.direction", name="sweep.metric"))
        for name, each in zip(names, given, strict=True)
    )


def check_metric(name: str) -> None:
    """Check that a metric may decide which trial is best.

    Raises:
        ConfigError: It may not.
    """
    if name.startswith("test/"):
        raise ConfigError(
            f"sweep.metric={name} would choose by the test split, whose score could then not be trusted. Use "
            f"val/{name.removeprefix('test/')}."
        )
    if not name.startswith("val/") and name not in NETWORK_COSTS:
        raise ConfigError(
            f"sweep.metric={name} is not known. Use a validation metric such as val/accuracy, or "
            f"{' or '.join(NETWORK_COSTS)}."
            f"{nearest(name, (*NETWORK_COSTS, 'val/accuracy', 'val/f1_macro', 'val/loss'))}"
        )


def check_search_settings(settings: SearchSettings, space: SearchSpace) -> None:
    """Check that the sampler and the pruner exist, know their options and take the space.

    Raises:
        ConfigError: One does not.
        MissingExtraError: The sampler needs a package that is not installed.
    """
    several = len(settings.objectives) > 1
    if not space.dimensions:
        raise ConfigError(
            "Nothing varies. Choose a space (space=lr), or give a setting several values "
            "(optimizer.lr='tag(log,interval(1e-5,1e-2))')."
        )
    if settings.pruner != "none" and several:
        raise ConfigError(f"sweep.pruner={settings.pruner} compares by one metric, and there are several. Use none.")
    if settings.sampler == "cmaes":
        check_cmaes(space, several)
    for name, most in settings.budget.items():
        if name not in NETWORK_COSTS or not most > 0:
            raise ConfigError(
                f"sweep.budget={{{name}: {most}}} must be a number above 0 of {' or '.join(NETWORK_COSTS)}."
            )
    if settings.sampler == "grid":
        space.grid()
    build_sampler(settings, 0)
    build_pruner(settings.pruner, settings.pruner_options)


def check_cmaes(space: SearchSpace, several: bool) -> None:
    """Check that CMA-ES takes the space.

    Raises:
        ConfigError: It does not.
        MissingExtraError: Its package is missing.
    """
    if importlib.util.find_spec("cmaes") is None:
        raise MissingExtraError("sweep=cmaes", "sweep")
    unfit = [each for each in space.dimensions if each.kind == "choice" or each.when]
    if unfit or several:
        what = f"{unfit[0]}{' is tried under a condition' if unfit[0].when else ''}" if unfit else "several objectives"
        raise ConfigError(
            f"sweep=cmaes searches over numbers that always vary, by one metric; it cannot take {what}. Use sweep=tpe."
        )
    if len(space.dimensions) < 2:
        raise ConfigError(
            f"sweep=cmaes needs two settings or more, and {space.dimensions[0].key} is one. Use sweep=tpe."
        )


def build_sampler(settings: SearchSettings, *place: int | str) -> optuna.samplers.BaseSampler:
    """Return a sampler whose randomness is a function of the search's seed and a place, such as a trial's number.

    So a search that is continued draws what one that was never stopped would draw.

    Raises:
        ConfigError: There is no such sampler, or it does not know an option.
    """
    kind = SAMPLERS.get(settings.sampler)
    if kind is None:
        raise ConfigError(
            f"sweep.sampler={settings.sampler} is not known. Use one of {', '.join(SAMPLERS)}."
            f"{nearest(settings.sampler, SAMPLERS)}"
        )
    own: dict[str, Any] = {"seed": zlib.crc32("/".join(map(str, (settings.seed, *place))).encode())}
    if settings.budget and settings.sampler in CONSTRAINED:
        own["constraints_func"] = excess
    return _build("sampler", settings.sampler, kind, settings.sampler_options, own)


def excess(trial: optuna.trial.FrozenTrial) -> Sequence[float]:
    """Return by how much a trial exceeds each of the budgets, in proportion."""
    return list(trial.user_attrs.get(EXCESS, [0.0]))


def build_pruner(name: str, options: Mapping[str, Any]) -> optuna.pruners.BasePruner:
    """Return a pruner.

    Raises:
        ConfigError: There is no such pruner, or it does not know an option.
    """
    if name not in PRUNERS:
        raise ConfigError(f"sweep.pruner={name} is not known. Use one of {', '.join(PRUNERS)}.{nearest(name, PRUNERS)}")
    return _build("pruner", name, PRUNERS[name], options, {})


def _build(what: str, name: str, kind: Callable[..., Made], options: Mapping[str, Any], own: Mapping[str, Any]) -> Made:
    """Return what a class makes of the user's options and our own, without its notes about what is new in Optuna."""
    known = [each for each in inspect.signature(kind).parameters if each not in _OWN]
    for option in options:
        if option not in known:
            there = f"({', '.join(known)}).{nearest(option, known)}"
            raise ConfigError(f"sweep.{what}_options.{option} is not an option of {name} {there}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind(**options, **own)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sweep.{what}={name} cannot be used with {dict(options)}: {error}") from error
