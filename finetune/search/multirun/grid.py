"""A grid of runs: which jobs `-m a=1,2 b=x,y` means, by Hydra's own grammar, and where the run of each lies."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finetune.config.aliases import rename_overrides
from finetune.config.compose import conf_dir
from finetune.config.error_messages import error_message
from finetune.config.quoting import quote_value
from finetune.config.resolve import resolve
from finetune.config.settings.root_table import ROOTS
from finetune.config.settings.roots import PartsSettings
from finetune.errors import ConfigError
from finetune.runs.run import Run
from finetune.search.multirun.job_progress import total_epochs


@dataclass(frozen=True)
class JobPlan:
    """A job of the grid before it runs.

    Attributes:
        what: Its overrides that not all jobs have, as the user reads them.
        overrides: Its overrides, with its run's folder where that has to be said.
        folder: Its run's folder; None where it makes no run.
        epochs: How many epochs it takes at most; None if that is not known.
        monitor: The value that decides which epoch is best.
        mode: Whether it is the max or the min of it.
        home: The folder of the multirun.
    """

    what: str
    overrides: tuple[str, ...]
    folder: Path | None
    epochs: int | None
    monitor: str
    mode: str
    home: Path


def expand_grid(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each job, in Hydra's order.

    Args:
        overrides: As typed, such as a=1,2 or b=range(1,4).

    Raises:
        ConfigError: They are not Hydra's grammar.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except HydraException as error:
        raise ConfigError(f"The overrides cannot be read: {str(error).splitlines()[0]}") from error
    return [list(job) for job in batch]


def without_pool(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of the jobs and those of the pool."""
    of_pool = [text for text in overrides if text.lstrip("+~").startswith(("pool=", "pool.", "pool@"))]
    return [text for text in overrides if text not in of_pool], of_pool


def plan_jobs(config_name: str, config_dir: str | None, overrides: Sequence[str]) -> list[JobPlan]:
    """Return the jobs of a command line.

    Args:
        config_name: The root configuration.
        config_dir: Where else configurations are; None for nowhere.
        overrides: What was typed, without the settings of the pool.

    Raises:
        ConfigError: The configuration of some job is wrong, or two jobs would share a folder.
    """
    refuse_launchers(overrides)
    with configurations(config_name, config_dir) as search:
        jobs = expand_grid([*sweeper_params(config_name, search, overrides), *overrides])
        plans = [plan_job(config_name, search, job) for job in jobs]
    common = set.intersection(*(set(plan.overrides) for plan in plans)) if len(plans) > 1 else set()
    plans = [replace(plan, what=" ".join(text for text in plan.overrides if text not in common)) for plan in plans]
    width = len(str(len(plans) - 1))
    plans = [placed(plan, f"{number:0{width}}") for number, plan in enumerate(plans)]
    refuse_shared_folders(plans)
    return plans


def refuse_launchers(overrides: Sequence[str]) -> None:
    """Check that no other launcher or sweeper of Hydra's is asked for."""
    for override in overrides:
        if override.lstrip("+~").startswith(("hydra/launcher", "hydra/sweeper")):
            raise ConfigError(
                f"{override} cannot be used: each job of a multirun is a process of its own. Leave it out."
            )


@contextmanager
def configurations(config_name: str, config_dir: str | None) -> Iterator[list[str]]:
    """Let Hydra compose, and give the override that names a second folder; the root may be in either."""
    folders = [conf_dir(), *([Path(config_dir).absolute()] if config_dir else [])]
    home = next((folder for folder in folders if (folder / f"{config_name}.yaml").is_file()), folders[0])
    others = ",".join(quote_value(f"file://{folder}") for folder in folders if folder != home)
    with initialize_config_dir(str(home), version_base="1.3"):
        yield [f"hydra.searchpath=[{others}]"] if others else []


def sweeper_params(config_name: str, search: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Return the sweep that a configuration, or an experiment that was typed, itself brings in hydra.sweeper.params."""
    single = [text for text in overrides if len(expand_grid([text])) == 1]
    params = OmegaConf.select(composed(config_name, search, single), "hydra.sweeper.params") or {}
    return rename_overrides([f"{key}={value}" for key, value in params.items()])


def composed(config_name: str, search: Sequence[str], overrides: Sequence[str]) -> DictConfig:
    """Return a configuration with Hydra's own part.

    Raises:
        ConfigError: It does not compose.
    """
    try:
        return compose(config_name, [*search, *overrides], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(error_message(error, list(overrides))) from error


def plan_job(config_name: str, search: Sequence[str], overrides: Sequence[str]) -> JobPlan:
    """Return a job whose run's folder has no number yet.

    Raises:
        ConfigError: Its configuration is wrong.
    """
    config = composed(config_name, search, overrides)
    hydra = config.hydra
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    settings = None
    if "action" not in task and task.get("verb") in ROOTS:  # what only shows something leaves values missing
        settings = resolve(task, ROOTS[task.verb], overrides)
    try:
        content: Any = OmegaConf.to_container(task, resolve=True)
        folder, home = Path(hydra.run.dir), Path(hydra.sweep.dir)
    except OmegaConfBaseException as error:
        raise ConfigError(error_message(error, list(overrides))) from error
    resumed = content.get("resume")
    if resumed is not None:
        folder = Run.find(str(resumed), Path(content["runs"])).path
    return JobPlan(
        what="",
        overrides=tuple(overrides),
        folder=folder if folder != Path() or resumed is not None else None,
        epochs=total_epochs(settings.strategy, settings.head) if isinstance(settings, PartsSettings) else None,
        monitor=content.get("monitor", ""),
        mode=content.get("mode", "max"),
        home=home,
    )


def placed(plan: JobPlan, number: str) -> JobPlan:
    """Return a job whose folder ends in its number, so that no two jobs started in one second share it.

    A folder that was typed, or that is continued, is left as it is.
    """
    given = any(text.lstrip("+").startswith(("hydra.run.dir=", "resume=")) for text in plan.overrides)
    if plan.folder is None or given:
        return plan
    folder = plan.folder.with_name(f"{plan.folder.name}_{number}")
    return replace(plan, folder=folder, overrides=(*plan.overrides, f"hydra.run.dir={quote_value(folder)}"))


def refuse_shared_folders(plans: Sequence[JobPlan]) -> None:
    """Check that each job has a folder of its own."""
    counts: Mapping[Path, int] = Counter(plan.folder.absolute() for plan in plans if plan.folder is not None)
    for folder, count in counts.items():
        if count > 1:
            raise ConfigError(
                f"{count} jobs would share the folder {folder}. Leave hydra.run.dir and resume to one job, or put what "
                "differs into it, such as hydra.run.dir='runs/seed_${seed}'."
            )
