"""The trials of a sweep, from first to last, shown and logged as they end."""

import logging

from finetune.runtime.log_files import record
from finetune.search.head_only.in_process import share_process
from finetune.search.multirun.live_table import DONE, LiveTable
from finetune.search.multirun.scheduler import Stop
from finetune.search.spaces.sample_configs import TrialConfigs
from finetune.search.study.loop import TrialLoop
from finetune.search.study.study import Search, TrialResult, TrialSpec
from finetune.search.study.trials import QUICK, TrialJobs, unless_typed
from finetune.search.sweep_plan import Sweep

log = logging.getLogger(__name__)


def run_trials(sweep: Sweep, program: tuple[str, ...], stop: Stop) -> bool:
    """Run the trials that are left, and return whether a failure has ended the search."""
    plan, search = sweep.plan, sweep.search
    jobs = jobs_of(sweep, program)
    left = search.left(nameless=sweep.nameless)

    if sweep.here:
        return share_process(sweep, jobs, left, stop, lambda *ended: log.info("%s", _trial_line(search, *ended)))
    first, configs = plan.settings.objectives[0], TrialConfigs(plan.request, plan.space)
    with LiveTable("trial", first.name, first.direction, total=search.total, slots=sweep.pool.size) as board:

        def on_start(asked: TrialSpec, slot: str) -> None:
            what = " ".join(search.space.overrides(asked.values))
            phases = configs.settings(asked.values).strategy.phases
            epochs = sum(phase.epochs for phase in phases)
            board.begin(str(asked.number), what, slot, folder=sweep.place.run_of(asked.number).path, epochs=epochs)

        def on_end(asked: TrialSpec, result: TrialResult) -> None:
            state = DONE if result.state == "complete" else result.state
            board.end(str(asked.number), state, result.values[0] if result.values else None)
            record.info("%s", _trial_line(search, asked, result))

        loop = TrialLoop(
            search, jobs, sweep.pool, plan.policy, on_start=on_start, on_end=on_end,
            tick=lambda: board.follow(sweep.pool.running()),
        )  # fmt: skip
        loop.run(left, stop)
    return loop.stopped


def jobs_of(sweep: Sweep, program: tuple[str, ...]) -> TrialJobs:
    """Return what makes jobs of trials; their runs are a group in W&B."""
    plan = sweep.plan
    command = (*program, *plan.request.flags)
    fixed = (*plan.fixed, *unless_typed({"group": f"'{sweep.place.study}'", **QUICK}, plan.fixed))
    return TrialJobs(sweep.place, plan.space, plan.settings, command, fixed, plan.trial_timeout)


def _trial_line(search: Search, asked: TrialSpec, result: TrialResult) -> str:
    """Return how a trial ended, and which is the best."""
    names = [each.name for each in search.settings.objectives]
    values = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, result.values, strict=False))
    best = search.best()
    leading = f" (best: {best[0].values[0]:.4g}, trial {best[0].number})" if best and len(names) == 1 else ""
    words = " ".join(search.space.overrides(asked.values))
    return f"Trial {asked.number} {result.state}: {values or result.cause or 'ended early'}{leading}  {words}"
