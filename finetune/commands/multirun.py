"""A multirun: the jobs of a grid on the devices of a pool, shown as they go and told one by one at the end."""

import sys
from collections.abc import Sequence
from contextlib import closing

from hydra._internal.utils import get_args_parser

from finetune.report.console.multirun_console import tell_end
from finetune.search.multirun.grid import plan_jobs, without_pool
from finetune.search.multirun.grid_run import Multirun, new_multirun_folder, open_pool, pool_settings, run_grid_jobs
from finetune.search.multirun.live_table import LiveTable
from finetune.search.multirun.scheduler import stoppable


def run_multirun(arguments: Sequence[str]) -> int:
    """Run the jobs of a command line, and return the exit code.

    It is 0 where all are done, 1 where one failed, 130 after Ctrl-C and 143 after SIGTERM.

    Args:
        arguments: The command line without the program, with -m.

    Raises:
        ConfigError: The settings of the pool or of some job are wrong; no job has been started then.
    """
    typed = get_args_parser().parse_args(list(arguments))
    overrides, of_pool = without_pool(typed.overrides)
    settings = pool_settings(typed.config_dir, of_pool)
    plans = plan_jobs(typed.config_name or "train", typed.config_dir, overrides)
    flags = [f"--config-name={typed.config_name}"] if typed.config_name else []
    flags += [f"--config-dir={typed.config_dir}"] if typed.config_dir else []
    command = [sys.executable, "-m", "finetune", *flags]
    multirun = Multirun(new_multirun_folder(plans[0].home), plans, command, settings.time_limit)
    with (
        closing(open_pool(settings, multirun.folder)) as pool,
        stoppable() as stop,
        LiveTable("job", plans[0].monitor, plans[0].mode, total=len(plans), slots=pool.size) as board,
    ):
        board.say(f"{len(plans)} jobs, {pool.size} at a time; their output is in {multirun.folder}")
        run_grid_jobs(multirun, pool, stop, board)
    return tell_end(multirun, stop, board)
