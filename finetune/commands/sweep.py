"""finetune sweep: from a command line to the trials of a search and what they have found."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from finetune.errors import FinetuneError, RunError
from finetune.report.pages.sweep_page import write_sweep_page
from finetune.runs.csv_file import write_csv
from finetune.runs.sweep_folder import SweepFolder
from finetune.runtime.log_files import keep_log, record
from finetune.search.command_line import read_request
from finetune.search.multirun.scheduler import Stop, stoppable
from finetune.search.results.summary import BestTrial, best_of, failures, rows
from finetune.search.results.wandb_export import write_export
from finetune.search.results.wandb_record import record_sweep
from finetune.search.sweep_opening import begin_sweep, join_sweep, resume_sweep
from finetune.search.sweep_plan import PROGRAM, Sweep, make_sweep_plan
from finetune.search.sweep_trials import run_trials

log = logging.getLogger(__name__)

FAILED = 1  # the exit code where every trial has failed, or a failure has ended the sweep


def run_sweep(arguments: Sequence[str], program: Sequence[str] = PROGRAM) -> int:
    """Run the sweep of a command line and return the exit code.

    Args:
        arguments: With --config-name sweep.
        program: What starts a trial; its overrides are added.

    Raises:
        ConfigError: The command line cannot be run; nothing has been written then.
    """
    typed = read_request(arguments)
    asked = typed.words()
    if asked["export"] is not None:
        print(write_export(make_sweep_plan(typed), str(asked["export"])))
        return 0
    if asked["join"] is not None:
        sweep = join_sweep(typed, str(asked["join"]))
    elif asked["resume"] is not None:
        sweep = resume_sweep(typed, str(asked["resume"]))
    else:
        sweep = begin_sweep(typed)
    keep_log(sweep.folder.log_file)
    varying = ", ".join(map(str, sweep.plan.space.dimensions))
    log.info("Sweep %s: %d trials of %s", sweep.place.study, sweep.search.total, varying)
    with stoppable() as stop:
        with closing(sweep.pool), telling_failure(sweep.folder):
            stopped = run_trials(sweep, tuple(program), stop)
        return _conclude(sweep, stop, stopped=stopped)


@contextmanager
def telling_failure(folder: SweepFolder) -> Iterator[None]:
    """Note in the folder that a sweep has failed, as such and not one of its trials; what is no fault of the user's
    goes to the log whole.
    """
    try:
        yield
    except FinetuneError:
        folder.update({"status": "failed"})
        raise
    except Exception as error:
        folder.update({"status": "failed"})
        record.exception("The sweep failed")
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(
            f"The sweep failed: {type(error).__name__}: {first} The traceback is in {folder.log_file}. Its trials are "
            f"kept: finetune sweep resume={folder.path}"
        ) from error


def _conclude(sweep: Sweep, stop: Stop, *, stopped: bool) -> int:
    """Write what was found, say it, and return the exit code."""
    search, folder, plan = sweep.search, sweep.folder, sweep.plan
    table = rows(search, sweep.place)
    best = best_of(search, sweep.place, plan.fixed, folder, plan.request.flags)
    found = Counter(row["state"] for row in table)
    left = found.get("running", 0) + max(0, search.total - len(table))
    status = "failed" if stopped else "interrupted" if stop.asked or left else "finished"
    write_csv(folder.table_file, table)
    folder.update(
        {
            "status": status,
            "trials": {"total": search.total, **found},
            "objectives": [{"name": each.name, "direction": each.direction} for each in search.settings.objectives],
            "best": [vars(each) for each in best],
        }
    )
    for line in failures(table, sweep.place):
        log.warning("%s", line)
    say_best(best, folder)
    if plan.page and not stop.asked:
        log.info("%s", write_sweep_page(search, folder, table, best))
    if left and sweep.nameless:
        log.info("%d trials are left. Go on with: finetune sweep resume=%s", left, folder.path)
    failed = stopped or not found.get("complete")
    code = stop.exit_code if stop.asked else FAILED if failed else 0
    record_sweep(folder, plan.logger, table, best, code=code)
    return code


def say_best(best: Sequence[BestTrial], folder: SweepFolder) -> None:
    """Log the best trials and how they are repeated."""
    for each in best[:10]:
        values = ", ".join(f"{name} {value:.4g}" for name, value in each.values.items())
        log.info("Best: trial %d, %s. Repeat it with:\n  %s", each.number, values, each.command)
    log.info("All trials: %s", folder.table_file)
