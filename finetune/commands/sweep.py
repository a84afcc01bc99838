"""The verb sweep: from a command line to the trials of a search and what they have found.

It is a composition root, the only code of sweeps that sees a whole command line; everything it calls takes typed
arguments.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune.errors import ConfigError, FinetuneError, RunError
from finetune.report.pages.sweep_page import write_sweep_page
from finetune.runs.sweep_folder import SweepFolder, find_folder, new_sweep_folder
from finetune.runtime.log_files import keep_log, record
from finetune.search.command_line import Request, read_request, request_of
from finetune.search.head_only.in_process import in_process, share_process
from finetune.search.multirun.live_table import DONE, LiveTable
from finetune.search.multirun.scheduler import Stop, stoppable
from finetune.search.pools.pool_factory import build_pool
from finetune.search.results.summary import BestTrial, best_of, counts, failures, rows, write_table
from finetune.search.results.wandb_export import write_export
from finetune.search.results.wandb_record import record_sweep
from finetune.search.spaces.sample_configs import TrialConfigs
from finetune.search.spaces.space import differences
from finetune.search.study.loop import Loop
from finetune.search.study.samplers import build_pruner
from finetune.search.study.storage import open_storage, place_of
from finetune.search.study.study import Result, Search, TrialSpec, create_study, load_study
from finetune.search.study.trials import QUICK, StudyLocation, TrialJobs, unless_typed
from finetune.search.sweep_plan import PROGRAM, Sweep, SweepPlan, make_sweep_plan
from finetune.training.phases import build_strategy

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
        return export(typed, str(asked["export"]))
    if asked["join"] is not None:
        sweep = _join(typed, str(asked["join"]))
    elif asked["resume"] is not None:
        sweep = resume(typed, str(asked["resume"]))
    else:
        sweep = _begin(typed)
    keep_log(sweep.folder.log_file)
    log.info("Sweep %s: %d trials of %s", sweep.place.study, sweep.search.total, about(sweep.plan))
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


def _begin(typed: Request) -> Sweep:
    """Return a new sweep."""
    plan = make_sweep_plan(typed)
    here = in_process(plan)
    folder = new_sweep_folder(Path(plan.root), plan.name)
    try:
        pool = build_pool(plan.pool, folder.path)
    except FinetuneError:
        folder.discard()
        raise
    place = StudyLocation(folder.path, place_of(plan.storage, folder.path), folder.name)
    storage = open_storage(place.storage)
    study = create_study(storage, place.study, plan.settings)
    kept = {"request": typed.to_json(), "space": plan.describe()}
    study.set_user_attr("sweep", kept)
    folder.update(
        {**kept, "name": folder.name, "created": datetime.now(UTC).isoformat(timespec="microseconds"),
         "command": sys.argv, "storage": place.storage, "study": place.study, "status": "running"}
    )  # fmt: skip
    return Sweep(plan, folder, place, Search(study, storage, plan.space, plan.settings, plan.trials), pool, here)


def resume(typed: Request, reference: str) -> Sweep:
    """Return a sweep that goes on in its folder."""
    folder = find_folder(reference, Path(typed.words()["folder"]))
    record = folder.record
    place = StudyLocation(folder.path, record["storage"], record["study"])
    plan, search = continued(typed, record, place)
    pool = build_pool(plan.pool, folder.path)
    folder.update({"status": "running"})
    return Sweep(plan, folder, place, search, pool, in_process(plan))


def _join(typed: Request, reference: str) -> Sweep:
    """Return another machine's sweep, whose further trials run here; `reference` is its storage or its folder."""
    record: dict[str, Any] = {}
    words = typed.words()
    storage, name = place_of(reference, Path()), words["name"]
    if (Path(reference) / "sweep.json").is_file():
        record = SweepFolder(Path(reference)).record
        storage, name = record["storage"], record["study"]
    elif "://" not in storage and not Path(storage).is_file():
        raise ConfigError(f"join={reference} is neither a sweep's folder nor its storage. Type the other's storage.")
    study = load_study(open_storage(storage), name, storage)
    record = record or study.user_attrs["sweep"]
    folder = SweepFolder(Path(words["folder"]) / study.study_name)
    place = StudyLocation(folder.path, storage, study.study_name)
    plan, search = continued(typed, record, place)
    pool = build_pool(plan.pool, folder.path)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.update({**record, **folder.record, "storage": storage, "study": place.study, "name": folder.name})
    return Sweep(plan, folder, place, search, pool, in_process(plan), nameless=False)


def continued(typed: Request, record: dict[str, Any], place: StudyLocation) -> tuple[SweepPlan, Search]:
    """Return the plan and the search of a sweep that goes on.

    Raises:
        ConfigError: It would be another sweep than the one that was begun.
    """
    stored = request_of(record["request"])
    plan = make_sweep_plan(stored.continued(typed))
    changes = list(differences(record["space"], plan.describe()))
    if typed.is_search():
        again = make_sweep_plan(typed.searching(stored))
        changes += list(differences(record["space"], again.describe()))
    if changes:
        raise ConfigError(
            f"{place.study} cannot go on, since it would be another search: {'; '.join(dict.fromkeys(changes))}. Start "
            "a new one without resume= and join=, or leave out what differs."
        )
    storage = open_storage(place.storage)
    study = load_study(storage, place.study, place.storage)
    study.pruner = build_pruner(plan.settings.pruner, plan.settings.pruner_options)
    return plan, Search(study, storage, plan.space, plan.settings, plan.trials)


def export(typed: Request, target: str) -> int:
    """Write the same search for another tool to run."""
    plan = make_sweep_plan(typed)
    print(write_export(plan, target))
    return 0


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
            phases = build_strategy(configs.plain(asked.values)["strategy"]).phases
            epochs = sum(phase.epochs for phase in phases)
            board.begin(str(asked.number), what, slot, folder=sweep.place.run_of(asked.number).path, epochs=epochs)

        def on_end(asked: TrialSpec, result: Result) -> None:
            state = DONE if result.state == "complete" else result.state
            board.end(str(asked.number), state, result.values[0] if result.values else None)
            record.info("%s", _trial_line(search, asked, result))

        def tick() -> None:
            board.follow(sweep.pool.running())
            board.refresh()

        loop = Loop(search, jobs, sweep.pool, plan.policy, on_start=on_start, on_end=on_end, tick=tick)
        loop.run(left, stop)
    return loop.stopped


def jobs_of(sweep: Sweep, program: tuple[str, ...]) -> TrialJobs:
    """Return what makes jobs of trials; their runs are a group in W&B."""
    plan = sweep.plan
    command = (*program, *plan.request.flags)
    fixed = (*plan.fixed, *unless_typed({"group": f"'{sweep.place.study}'", **QUICK}, plan.fixed))
    return TrialJobs(sweep.place, plan.space, plan.settings, command, fixed, plan.trial_timeout)


def _trial_line(search: Search, asked: TrialSpec, result: Result) -> str:
    """Return how a trial ended, and which is the best."""
    names = [each.name for each in search.settings.objectives]
    values = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, result.values, strict=False))
    best = search.best()
    leading = f" (best: {best[0].values[0]:.4g}, trial {best[0].number})" if best and len(names) == 1 else ""
    words = " ".join(search.space.overrides(asked.values))
    return f"Trial {asked.number} {result.state}: {values or result.cause or 'ended early'}{leading}  {words}"


def _conclude(sweep: Sweep, stop: Stop, *, stopped: bool) -> int:
    """Write what was found, say it, and return the exit code."""
    search, folder, plan = sweep.search, sweep.folder, sweep.plan
    table = rows(search, sweep.place)
    best = best_of(search, sweep.place, plan.fixed, folder, plan.request.flags)
    found = counts(table)
    left = found.get("running", 0) + max(0, search.total - len(table))
    status = "failed" if stopped else "interrupted" if stop.asked or left else "finished"
    write_table(table, folder)
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


def about(plan: SweepPlan) -> str:
    """Return in a line what varies."""
    return ", ".join(map(str, plan.space.dimensions))
