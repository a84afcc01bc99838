"""Sweeps that begin, go on, or join that of another machine."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finetune.errors import ConfigError, FinetuneError
from finetune.runs.sweep_folder import SweepFolder, find_folder, new_sweep_folder
from finetune.search.command_line import Request, request_of
from finetune.search.head_only.in_process import in_process
from finetune.search.pools.pool_factory import build_pool
from finetune.search.spaces.space import differences
from finetune.search.study.samplers import build_pruner
from finetune.search.study.storage import open_storage, place_of
from finetune.search.study.stored_names import renamed_description, stored_names
from finetune.search.study.study import Search, create_study, load_study
from finetune.search.study.trials import StudyLocation
from finetune.search.sweep_plan import Sweep, SweepPlan, make_sweep_plan


def begin_sweep(typed: Request) -> Sweep:
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


def resume_sweep(typed: Request, reference: str) -> Sweep:
    """Return a sweep that goes on in its folder."""
    folder = find_folder(reference, Path(typed.words()["folder"]))
    record = folder.record
    place = located(folder.path, record)
    plan, search = continued(typed, record, place)
    pool = build_pool(plan.pool, folder.path)
    folder.update({"status": "running"})
    return Sweep(plan, folder, place, search, pool, in_process(plan))


def located(folder: Path, record: Mapping[str, Any]) -> StudyLocation:
    """Return where the study of a stored sweep is: a journal in its own folder, also where that was copied, or a url.

    Raises:
        ConfigError: The record does not say, or names a file elsewhere.
    """
    storage, study = record.get("storage"), record.get("study")
    file = folder / "sweep.json"
    if not isinstance(storage, str) or not isinstance(study, str) or not isinstance(record.get("space"), dict):
        raise ConfigError(f"{file} does not say where its study is: it is damaged, or none of finetune's. Begin anew.")
    if "://" not in storage:
        own = folder / Path(storage).name
        if Path(storage).absolute() != own.absolute() and not own.is_file():
            raise ConfigError(
                f"{file} keeps its study outside its folder, in {storage}. If that is right, type: finetune sweep join="
                f"{storage}"
            )
        storage = str(own)
    return StudyLocation(folder, storage, study)


def join_sweep(typed: Request, reference: str) -> Sweep:
    """Return another machine's sweep, whose further trials run here; `reference` is its storage or its folder."""
    record: dict[str, Any] = {}
    words = typed.words()
    storage, name = place_of(reference, Path()), words["name"]
    if (Path(reference) / "sweep.json").is_file():
        record = SweepFolder(Path(reference)).record
        place = located(Path(reference), record)
        storage, name = place.storage, place.study
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
    stored = request_of(record, place.folder / "sweep.json")
    plan = make_sweep_plan(stored.continued(typed))
    before = renamed_description(record["space"])
    changes = list(differences(before, plan.describe()))
    if typed.fixed or typed.swept or typed.spaces():
        again = make_sweep_plan(typed.searching(stored))
        changes += list(differences(before, again.describe()))
    if changes:
        raise ConfigError(
            f"{place.study} cannot go on, since it would be another search: {'; '.join(dict.fromkeys(changes))}. Start "
            "a new one without resume= and join=, or leave out what differs."
        )
    storage = open_storage(place.storage)
    study = load_study(storage, place.study, place.storage)
    study.pruner = build_pruner(plan.settings.pruner, plan.settings.pruner_options)
    names = stored_names(record["space"])
    return plan, Search(study, storage, plan.space, plan.settings, plan.trials, names)
