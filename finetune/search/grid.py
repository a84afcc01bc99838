"""A grid of runs: `-m a=1,2 b=x,y` starts one ordinary process per combination.

It decides which jobs a command line means, by Hydra's own grammar; each job composes its own configuration and has its
own run folder, so several GPUs within a job work as they do without a grid.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finetune.config import conf_dir
from finetune.errors import ConfigError
from finetune.messages import explain

# what a launcher of distributed runs leaves behind, which would make a job one of its ranks
LAUNCHER_VARIABLES = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "NODE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
)


def expand(overrides: Sequence[str]) -> list[list[str]]:
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


def run_grid(arguments: Sequence[str]) -> int:
    """Run one process after the other and return 0, or 1 where any failed.

    Args:
        arguments: The command line without the program, with -m.

    Raises:
        ConfigError: The overrides of some job are wrong; no job has been started then.
    """
    parsed = get_args_parser().parse_args(list(arguments))
    refuse_launchers(parsed.overrides)
    flags = [f"--config-name={parsed.config_name}"] if parsed.config_name else []
    flags += [f"--config-dir={parsed.config_dir}"] if parsed.config_dir else []
    jobs = expand([*sweeper_params(parsed.config_name, parsed.config_dir), *parsed.overrides])
    for job in jobs:
        check(parsed.config_name, parsed.config_dir, job)
    failed = 0
    for number, job in enumerate(jobs, 1):
        print(f"Job {number} of {len(jobs)}: {' '.join(job)}", flush=True)
        failed += run_job([*flags, *job]) != 0
    if failed:
        print(f"finetune: {failed} of {len(jobs)} jobs failed; see their train.log.", file=sys.stderr)
    return 1 if failed else 0


def refuse_launchers(overrides: Sequence[str]) -> None:
    """Check that no other launcher or sweeper of Hydra's is asked for."""
    for override in overrides:
        if override.lstrip("+~").startswith(("hydra/launcher", "hydra/sweeper")):
            raise ConfigError(
                f"{override} cannot be used: each job of a multirun is a process of its own. Leave it out."
            )


def sweeper_params(config_name: str | None, config_dir: str | None) -> list[str]:
    """Return the sweep that a configuration itself brings in hydra.sweeper.params."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        search = [f"hydra.searchpath=[file://{os.path.abspath(config_dir)}]"] if config_dir else []
        config = compose(config_name or "train", search, return_hydra_config=True)
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    return [f"{key}={value}" for key, value in params.items()]


def check(config_name: str | None, config_dir: str | None, job: Sequence[str]) -> None:
    """Check that a job's overrides compose."""
    search = [f"hydra.searchpath=[file://{os.path.abspath(config_dir)}]"] if config_dir else []
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            compose(config_name or "train", [*search, *job])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, list(job))) from error


def run_job(arguments: Sequence[str]) -> int:
    """Run one job to its end and return its exit code; Ctrl-C ends it and is passed on."""
    environment = {key: value for key, value in os.environ.items() if key not in LAUNCHER_VARIABLES}
    process = subprocess.Popen([sys.executable, "-m", "finetune", *arguments], env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        # the terminal has sent the child its own Ctrl-C: let it end cleanly
        process.wait()
        raise
