"""The end of a multirun on the screen: the best job, those that failed, and how they go on."""

import shlex
import sys

from finetune.runs.run import INTERRUPTED, Run
from finetune.search.multirun.grid_run import Multirun
from finetune.search.multirun.live_table import LiveTable
from finetune.search.multirun.scheduler import Stop
from finetune.search.pools.jobs import FAILED, Outcome, last_words


def tell_end(multirun: Multirun, stop: Stop, board: LiveTable) -> int:
    """Print the best job, those that failed and those that can be continued, and return the exit code."""
    best = board.best
    if best is not None:
        folder = multirun.of_key[best.name].folder
        where = "" if folder is None else f" in {folder}"
        print(f"Best {board.monitor} {best.progress.best:.4f}: job {best.name} ({best.what}){where}")
    failed, number = multirun.failed, len(multirun.plans)
    done = len(multirun.outcomes) - len(failed)
    interrupted = stop.asked and done < number
    if interrupted:
        print(f"finetune: Interrupted when {done} of {number} jobs were done.", file=sys.stderr)
    elif failed:
        print(f"finetune: {len(failed)} of {number} jobs failed:", file=sys.stderr)
    for outcome in failed:
        print(f"  {_described(multirun, outcome)}", file=sys.stderr)
    if interrupted:
        return stop.exit_code
    return 1 if failed else 0


def _described(multirun: Multirun, outcome: Outcome) -> str:
    """Return how a job failed, what it said last, and what can be done with it."""
    plan, log = multirun.of_key[outcome.key], multirun.log(outcome.key)
    code = f" with exit code {outcome.code}" if outcome.reason == FAILED else ""
    job = f"job {outcome.key} ({plan.what}) {outcome.reason}{code}"
    if plan.folder is not None and Run(plan.folder).status == INTERRUPTED:
        return f"{job}; continue it with: finetune resume={shlex.quote(str(plan.folder))}"
    return f"{job}: {last_words(log)} Its output is in {log}."
