"""Head-only sweeps in this process, and the run that its best trial is given in the end."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from finetune.runs.run import FINISHED
from finetune.search.head_only.eligibility import allowed, obstacles
from finetune.search.multirun.scheduler import Stop, drive_pool
from finetune.search.pools.jobs import Job, Outcome
from finetune.search.spaces.sample_configs import TrialConfigs
from finetune.search.spaces.space import SettingValue
from finetune.search.study.study import TrialResult, TrialSpec
from finetune.search.study.trials import TrialJobs
from finetune.search.sweep_plan import Sweep, SweepPlan

log = logging.getLogger(__name__)
OnEnd = Callable[[TrialSpec, TrialResult], None]


def in_process(plan: SweepPlan) -> bool:
    """Return whether the trials run in this process.

    Raises:
        ConfigError: It is asked for, and cannot be.
    """
    found = [] if plan.in_process == "false" else obstacles(plan, TrialConfigs(plan.request, plan.space))
    return allowed(plan.in_process, found, "sweep.in_process")


def share_process(sweep: Sweep, jobs: TrialJobs, left: Sequence[TrialSpec], stop: Stop, on_end: OnEnd) -> bool:
    """Run the trials in this process, then the best as an ordinary run; return whether a failure has ended them."""
    from finetune.search.head_only.head_trials import load_trainer, run_head_trials, run_trial

    plan, search = sweep.plan, sweep.search
    log.info(
        "Only the head varies over features that stand still: all trials run in this process%s.",
        "" if plan.settings.pruner == "none" else ", each too short to be pruned",
    )
    configs = TrialConfigs(plan.request, plan.space)
    trainer = load_trainer(configs.settings({}))

    def run(values: Mapping[str, SettingValue]) -> TrialResult:
        return run_trial(trainer, configs.settings(values), plan.settings.objectives)

    stopped = run_head_trials(search, run, plan.policy, stop, left, on_end=on_end)
    if not stop.asked and not stopped:
        run_best(sweep, jobs, stop)
    return stopped


def run_best(sweep: Sweep, jobs: TrialJobs, stop: Stop) -> None:
    """Give the best trial its run folder, with checkpoint and test score."""
    for trial in sweep.search.best()[:1]:
        asked = TrialSpec(trial.number, sweep.search.values_of(trial))
        run = sweep.place.run_of(asked.number)
        if run.record.get("status") != FINISHED:
            log.info("Running trial %d, the best, as an ordinary run: %s", asked.number, run.path)
            run_once(sweep, jobs, asked, stop)
        found = jobs.result(asked)
        if found is not None and found.values:
            log.info("It scores %.4g, in this process it had %.4g.", found.values[0], trial.values[0])


def run_once(sweep: Sweep, jobs: TrialJobs, asked: TrialSpec, stop: Stop) -> None:
    """Run a trial whose end the study knows as a job that reports to nobody."""
    waiting = [replace(jobs.job(asked, 1), environment={})]

    def settle(outcome: Outcome) -> None:
        if outcome.code != 0:
            log.warning("It failed: %s", jobs.failure(asked, outcome).cause)

    def next_job() -> Job | None:
        return waiting.pop() if waiting else None

    drive_pool(sweep.pool, stop, next_job=next_job, started=ignore, ended=settle, tick=ignore)


def ignore(*_: object) -> None:
    """Do nothing."""
