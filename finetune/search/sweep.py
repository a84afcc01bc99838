"""The verb sweep: from a command line to the trials of a search and what they have found.

It is a composition root, the only code of sweeps that sees a whole command line; everything it calls takes typed
arguments.
"""

import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune.errors import ConfigError
from finetune.search.folder import SweepFolder, find_folder, new_folder
from finetune.search.interruption import Interruption, interruptible
from finetune.search.loop import Loop
from finetune.search.plan import PROGRAM, Plan, make_plan
from finetune.search.pools import build_pool
from finetune.search.request import Request, read_request, request_of
from finetune.search.results import Best, best_of, counts, failures, rows, write_table
from finetune.search.samplers import build_pruner
from finetune.search.space import differences
from finetune.search.storage import open_storage, place_of
from finetune.search.study import Asked, Result, Search, create_study, load_study
from finetune.search.trials import Place, TrialJobs

log = logging.getLogger(__name__)

# of the exit code where every trial has failed, or a failure has ended the sweep
FAILED = 1


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
    if asked["join"] is not None:
        plan, folder, search, place = join(typed, asked["join"])
    elif asked["resume"] is not None:
        plan, folder, search, place = resume(typed, asked["resume"])
    else:
        plan, folder, search, place = begin(typed)
    keep_log(folder)
    log.info("Sweep %s: %d trials of %s, in %s", place.study, search.total, about(plan), folder.path)
    with interruptible() as stop:
        stopped = run_trials(plan, search, place, tuple(program), stop, nameless=asked["join"] is None)
    return conclude(plan, folder, search, place, stop, stopped=stopped)


def begin(typed: Request) -> tuple[Plan, SweepFolder, Search, Place]:
    """Return a new sweep."""
    plan = make_plan(typed)
    folder = new_folder(Path(plan.root), plan.name)
    place = Place(folder.path, place_of(plan.storage, folder.path), folder.name)
    study = create_study(open_storage(place.storage), place.study, plan.settings)
    kept = {"request": typed.to_json(), "space": plan.describe()}
    study.set_user_attr("sweep", kept)
    folder.update(
        {**kept, "name": folder.name, "created": datetime.now(UTC).isoformat(timespec="microseconds"),
         "command": sys.argv, "storage": place.storage, "study": place.study}
    )  # fmt: skip
    return plan, folder, Search(study, plan.space, plan.settings, plan.trials), place


def resume(typed: Request, reference: str) -> tuple[Plan, SweepFolder, Search, Place]:
    """Return a sweep that goes on in its folder."""
    folder = find_folder(reference, Path(typed.words()["folder"]))
    record = folder.record
    place = Place(folder.path, record["storage"], record["study"])
    plan, search = continued(typed, record, place)
    return plan, folder, search, place


def join(typed: Request, reference: str) -> tuple[Plan, SweepFolder, Search, Place]:
    """Return another machine's sweep, whose further trials run here; `reference` is its storage or its folder."""
    record: dict[str, Any] = {}
    storage, name = place_of(reference, Path()), typed.words()["name"]
    if (Path(reference) / "sweep.json").is_file():
        record = SweepFolder(Path(reference)).record
        storage, name = record["storage"], record["study"]
    study = load_study(open_storage(storage), name, storage)
    record = record or study.user_attrs["sweep"]
    folder = SweepFolder(Path(typed.words()["folder"]) / study.study_name)
    place = Place(folder.path, storage, study.study_name)
    plan, search = continued(typed, record, place)
    folder.path.mkdir(parents=True, exist_ok=True)
    if not folder.record:
        folder.update({**record, "storage": storage, "study": place.study, "name": folder.name})
    return plan, folder, search, place


def continued(typed: Request, record: dict[str, Any], place: Place) -> tuple[Plan, Search]:
    """Return the plan and the search of a sweep that goes on.

    Raises:
        ConfigError: It would be another sweep than the one that was begun.
    """
    stored = request_of(record["request"])
    plan = make_plan(stored.continued(typed))
    changes = list(differences(record["space"], plan.describe()))
    if typed.is_search():
        again = make_plan(typed.searching(stored))
        changes += list(differences(record["space"], again.describe()))
    if changes:
        raise ConfigError(
            f"{place.study} cannot go on, since it would be another search: {'; '.join(dict.fromkeys(changes))}. Start "
            "a new one without resume= and join=, or leave out what differs."
        )
    study = load_study(open_storage(place.storage), place.study, place.storage)
    study.pruner = build_pruner(plan.settings.pruner, plan.settings.pruner_options)
    return plan, Search(study, plan.space, plan.settings, plan.trials)


def run_trials(
    plan: Plan, search: Search, place: Place, program: tuple[str, ...], stop: Interruption, *, nameless: bool
) -> bool:
    """Run the trials that are left, and return whether a failure has ended the search."""
    grouped = any(override.startswith("group=") for override in plan.fixed)
    group = () if grouped else (f"group='{place.study}'",)
    jobs = TrialJobs(
        place, plan.space, plan.settings, (*program, *plan.request.flags), (*plan.fixed, *group), plan.trial_timeout
    )
    pool = build_pool(plan.pool)
    loop = Loop(search, jobs, pool, plan.policy, stop, on_end=lambda asked, result: tell(search, asked, result))
    try:
        loop.run(search.left(nameless=nameless))
    finally:
        pool.close()
    return loop.stopped


def tell(search: Search, asked: Asked, result: Result) -> None:
    """Log how a trial ended, and which is the best."""
    names = [each.name for each in search.settings.objectives]
    values = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, result.values, strict=False))
    best = search.best()
    leading = f" (best: {best[0].values[0]:.4g}, trial {best[0].number})" if best and len(names) == 1 else ""
    words = " ".join(search.space.overrides(asked.values))
    log.info(
        "Trial %d %s: %s%s  %s", asked.number, result.state, values or result.cause or "ended early", leading, words
    )


def conclude(
    plan: Plan, folder: SweepFolder, search: Search, place: Place, stop: Interruption, *, stopped: bool
) -> int:
    """Write what was found, say it, and return the exit code."""
    table = rows(search, place)
    best = best_of(search, place, plan.fixed, folder, plan.request.flags)
    found = counts(table)
    open_trials = found.get("running", 0) + max(0, search.total - len(table))
    status = "failed" if stopped else "interrupted" if stop.times or open_trials else "finished"
    write_table(table, folder)
    folder.update(
        {
            "status": status,
            "trials": {"total": search.total, **found},
            "objectives": [{"name": each.name, "direction": each.direction} for each in search.settings.objectives],
            "best": [vars(each) for each in best],
        }
    )
    for line in failures(table, place):
        log.warning("%s", line)
    say_best(best, folder)
    if stop.times or open_trials:
        log.info("%d trials are left. Go on with: finetune sweep resume=%s", open_trials, folder.path)
    if stop.times:
        return stop.code
    return FAILED if stopped or not found.get("complete") else 0


def say_best(best: Sequence[Best], folder: SweepFolder) -> None:
    """Log the best trials and how they are repeated."""
    for each in best[:10]:
        values = ", ".join(f"{name} {value:.4g}" for name, value in each.values.items())
        log.info("Best: trial %d, %s. Repeat it with:\n  %s", each.number, values, each.command)
    log.info("All trials: %s", folder.table_file)


def about(plan: Plan) -> str:
    """Return in a line what varies."""
    return ", ".join(map(str, plan.space.dimensions))


def keep_log(folder: SweepFolder) -> None:
    """Show messages as they are, and keep them with their time."""
    screen, file = logging.StreamHandler(sys.stderr), logging.FileHandler(folder.log_file, encoding="utf-8")
    screen.setFormatter(logging.Formatter("%(message)s"))
    file.setFormatter(logging.Formatter("[%(asctime)s][%(levelname)s][%(name)s] %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[screen, file], force=True)
