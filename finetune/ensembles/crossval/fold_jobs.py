"""Folds as ordinary runs in a pool: each a process with its run folder, all of them one group."""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from finetune.config.quoting import quote_value
from finetune.config.settings.data_groups import FoldSettings
from finetune.data.table import load_saved_table
from finetune.ensembles.crossval.crossval_plan import CrossvalPlan
from finetune.ensembles.crossval.in_process import FoldResult
from finetune.errors import RunError
from finetune.evaluation.compare.comparison import short_name
from finetune.evaluation.predictions import Predictions
from finetune.models.bundle import load_bundle
from finetune.models.ensemble_network import Member
from finetune.runs.run import FINISHED, INTERRUPTED, Run
from finetune.search.multirun.job_progress import total_epochs
from finetune.search.multirun.live_table import DONE, LiveTable
from finetune.search.multirun.scheduler import Stop, drive_pool
from finetune.search.pools.jobs import Job, Outcome, last_words
from finetune.search.pools.pool_factory import build_pool
from finetune.search.study.trials import QUICK, resume_words, set_aside, unless_typed
from finetune.search.sweep_plan import PROGRAM
from finetune.training.run_lifecycle import resume_command


class FoldJobs:
    """Makes jobs of folds.

    Attributes:
        failed: How folds ended that did not come to their end.
    """

    def __init__(self, plan: CrossvalPlan, run: Run, number: int) -> None:
        """Look which folds are left.

        Args:
            plan: The cross-validation.
            run: Its run, in whose folder those of the folds lie.
            number: How many folds there are.
        """
        self.plan = plan
        self.run = run
        self.width = len(str(number - 1))
        self.left = [fold for fold in range(number) if self.fold(fold).record.get("status") != FINISHED]
        self.failed: dict[str, Outcome] = {}

    def fold(self, number: int) -> Run:
        """Return the run of a fold."""
        return Run(self.run.path / "folds" / f"{number:0{self.width}}")

    def log(self, number: int) -> Path:
        """Return where the output of a fold goes."""
        return self.run.path / "folds" / "logs" / f"{number:0{self.width}}.log"

    def next_job(self) -> Job | None:
        """Return the next fold's job; None where all have been started."""
        if not self.left:
            return None
        number = self.left.pop(0)
        log = self.log(number)
        log.parent.mkdir(parents=True, exist_ok=True)
        command = (*PROGRAM, *self.plan.request.flags, *self.arguments(number))
        return Job(str(number), command, log, {}, self.plan.pool.time_limit)

    def arguments(self, number: int) -> list[str]:
        """Return a fold's overrides; a run that was interrupted goes on, any other is set aside and begun anew."""
        run = self.fold(number)
        if run.status == INTERRUPTED and run.last_checkpoint.exists():
            return resume_words(run)
        if run.path.exists():
            set_aside(run.path, sum(1 for _ in run.path.parent.glob(f"{run.path.name}-attempt-*")))
        fixed = self.plan.request.fixed
        plain = unless_typed({"group": quote_value(short_name(self.run.path)), **QUICK}, fixed)
        return [*fixed, *plain, override_of(self.plan.settings, number), f"hydra.run.dir={quote_value(run.path)}"]

    def result(self, number: int) -> FoldResult:
        """Return what a fold's run has left."""
        run = self.fold(number)
        bundle = load_bundle(run.model_dir)
        splits = load_saved_table(run.table_file)[0]
        learnt = splits.loc[splits["split"] != "test", "path"].nunique()
        member = Member(bundle.network, bundle.scaling)
        return FoldResult(number, member, Predictions.load(run.predictions_file("test")), int(learnt))


def override_of(settings: FoldSettings, number: int) -> str:
    """Return the override that makes an ordinary run one fold."""
    parts = ",".join(f"{key}:{value}" for key, value in {**asdict(settings), "index": number}.items())
    return f"data.splits.fold={{{parts}}}"


def run_fold_jobs(plan: CrossvalPlan, run: Run, number: int, stop: Stop) -> list[FoldResult]:
    """Run the folds that are left, and return all of them.

    Raises:
        RunError: Some have failed; the others are kept.
        SystemExit: They were interrupted.
    """
    jobs = FoldJobs(plan, run, number)
    monitor, mode = plan.base.monitor, plan.base.mode
    epochs = total_epochs(plan.base.strategy, plan.base.head)
    with (
        closing(build_pool(plan.pool, run.path)) as pool,
        LiveTable("fold", monitor, mode, total=len(jobs.left), slots=pool.size) as board,
    ):

        def started(job: Job, slot: str) -> None:
            board.begin(job.key, f"{number} folds", slot, folder=jobs.fold(int(job.key)).path, epochs=epochs)

        def ended(outcome: Outcome) -> None:
            if outcome.reason != DONE:
                jobs.failed[outcome.key] = outcome
            board.end(outcome.key, outcome.reason)

        drive_pool(
            pool, stop, next_job=jobs.next_job, started=started, ended=ended,
            tick=lambda: board.follow(pool.running()),
        )  # fmt: skip
    if stop.asked:
        raise SystemExit(stop.exit_code)
    if jobs.failed:
        key, outcome = next(iter(jobs.failed.items()))
        log = jobs.log(int(key))
        raise RunError(
            f"{len(jobs.failed)} of {number} folds failed (first: fold {key}, {outcome.reason}: {last_words(log)}). "
            f"Its output is in {log}. The others are kept: {resume_command(run, plan.config.verb)}"
        )
    return [jobs.result(fold) for fold in range(number)]
