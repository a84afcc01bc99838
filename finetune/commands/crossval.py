"""finetune crossval: one experiment of many folds, with a score for images that no model has seen, and an ensemble."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from finetune.commands.run_end import finish_run
from finetune.commands.run_start import record_images
from finetune.data.folds import Fold, crossval_pool, make_folds, with_fold
from finetune.data.table import ImageTable
from finetune.ensembles.crossval.aggregate import aggregate_folds, crossval_table
from finetune.ensembles.crossval.crossval_plan import CHANGEABLE, COMMAND, OWN, CrossvalPlan, make_crossval_plan
from finetune.ensembles.crossval.fold_jobs import run_fold_jobs
from finetune.ensembles.crossval.fold_recipe import with_recipe
from finetune.ensembles.crossval.in_process import FoldResult, read_table, train_folds
from finetune.ensembles.crossval.nested_search import run_nested
from finetune.errors import ConfigError, FinetuneError, RunError
from finetune.report.console.crossval_console import crossval_lines
from finetune.runs.run import Run
from finetune.runtime.log_files import keep_log, record
from finetune.runtime.log_filters import quieten
from finetune.search.autoconfig.recipe import record_choices
from finetune.search.autoconfig.rules import RecipeChoice
from finetune.search.command_line import Request, read_request, request_of
from finetune.search.multirun.scheduler import stoppable
from finetune.search.spaces.grammar import parse_all
from finetune.training.head_trainer import HeadTrainer
from finetune.training.run_lifecycle import check_command, record_outcome, resume_command
from finetune.uncertainty.ood.settings import check_ood_settings

log = logging.getLogger(__name__)


def run_crossval(arguments: Sequence[str]) -> int:
    """Run the cross-validation of a command line and return the exit code.

    Args:
        arguments: With --config-name crossval.

    Raises:
        ConfigError: The command line cannot be run; nothing has been written then.
        RunError: Some folds have failed.
    """
    started = time.monotonic()
    quieten()
    typed = read_request(arguments, OWN, COMMAND)
    plan, resumed, choices = _begin(typed)
    table = read_table(plan.base)
    folds = checked_folds(plan, table)
    check_ood_settings(plan.base.ood, table.task)
    run = Run(plan.folder)
    with record_outcome(run, plan.config, resume=resumed) as tracker:
        keep_log(run.log_file)
        run.update(crossval={"request": plan.request.to_json(), "folds": len(folds)})
        record_choices(run, choices)
        record_images(run, crossval_table(table))
        log.info("%d folds of %d images, %s", len(folds), len(crossval_pool(table)), _place_of(plan))
        try:
            model = aggregate_folds(plan, table, _train(plan, run, table, folds))
            finish_run(run, plan.config, model, tracker, started, summary=crossval_lines)
        except FinetuneError:
            raise
        except Exception as error:
            record.exception("The cross-validation failed")
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RunError(
                f"The cross-validation failed: {type(error).__name__}: {first} The traceback is in {run.log_file}. "
                f"Finished folds are kept: {resume_command(run, plan.config.verb)}"
            ) from error
    return 0


def _begin(typed: Request) -> tuple[CrossvalPlan, bool, list[RecipeChoice]]:
    """Return the plan of a new cross-validation, or of one that goes on, which of the two it is, and what was chosen.

    Raises:
        ConfigError: What goes on is no cross-validation, or what was typed would make it another one.
    """
    words = {each.key_or_group: each.value() for each in parse_all(typed.own)}
    reference = words.get("resume")
    if reference is None:
        request, choices = with_recipe(typed)
        return make_crossval_plan(request), False, choices
    roots = [each.value() for each in parse_all(typed.fixed) if each.key_or_group == "runs"]
    run = Run.find(str(reference), Path(str(roots[0]) if roots else "runs"))
    check_command(run, COMMAND)
    lines = [str(each.input_line) for each in parse_all([*typed.own, *typed.fixed, *typed.swept])]
    others = [line for line in lines if line.partition("=")[0].split(".")[0] not in CHANGEABLE]
    if others:
        raise ConfigError(
            f"{others[0]} cannot be changed when a cross-validation goes on: it would be another one. Start a new one, "
            "or leave it out."
        )
    run.check_resumable()
    request = request_of(run.record.get("crossval") or {}, run.record_file, "crossval")
    pool = [line for line in typed.own if line.partition("=")[0].split(".")[0] == "pool"]
    return replace(make_crossval_plan(replace(request, own=(*request.own, *pool))), folder=run.path), True, []


def checked_folds(plan: CrossvalPlan, table: ImageTable) -> list[Fold]:
    """Return the folds, each of which can be trained.

    Raises:
        ConfigError: There are too few images, or groups.
        DataError: A fold would lack training images of a class.
    """
    splits, pool = plan.base.data.splits, crossval_pool(table)
    folds = make_folds(pool, plan.settings, splits.group)
    for fold in folds:
        with_fold(pool, fold, val=splits.val, seed=splits.seed, group=splits.group)
    return folds


def _place_of(plan: CrossvalPlan) -> str:
    """Return in words where the folds run."""
    if plan.search is not None:
        return f"each with a search of {plan.search.trials} trials on {plan.inner} folds of its own"
    return "one head after the other in this process" if plan.here else "each a run of its own"


def _train(plan: CrossvalPlan, run: Run, table: ImageTable, folds: list[Fold]) -> list[FoldResult]:
    """Train all folds."""
    if not plan.here:
        with stoppable() as stop:
            return run_fold_jobs(plan, run, len(folds), stop)
    heads = HeadTrainer(plan.base, crossval_pool(table))
    if plan.search is not None:
        return list(run_nested(heads, folds, plan.search, plan.inner))
    return list(train_folds(heads, folds))
