"""A trial as a job of a pool: its folder, its command line, what it is told by the environment, and how it ended."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.config.directions import NETWORK_COSTS
from finetune.config.quoting import quote_value
from finetune.config.trust import trust_words
from finetune.runs.checkpoint_scores import checkpoint_scores
from finetune.runs.run import FINISHED, INTERRUPTED, PRUNED, RUNNING, Run
from finetune.runs.stored_files import read_json
from finetune.search.pools.jobs import DONE, FAILED, Job, Outcome, last_words
from finetune.search.spaces.space import SearchSpace
from finetune.search.study.samplers import SearchObjective, SearchSettings
from finetune.search.study.study import TrialResult, TrialSpec

# what tells a run that it is a trial, which reports to a study
VARIABLE = "FINETUNE_TRIAL"
# of runs that are one of many, where nothing else was typed; finetune report makes the page of any that is of interest
QUICK = {"report": "false", "explain.images": "0"}


@dataclass(frozen=True)
class StudyLocation:
    """Where a search is kept, as any process finds it.

    Attributes:
        folder: Of the sweep.
        storage: Optuna's.
        study: Its name there.
    """

    folder: Path
    storage: str
    study: str

    def run_of(self, number: int) -> Run:
        """Return the run folder of a trial."""
        return Run(self.folder / "trials" / f"{number:04d}")

    def log_of(self, number: int) -> Path:
        """Return where a trial's output goes."""
        return self.folder / "logs" / f"{number:04d}.log"


@dataclass(frozen=True)
class TrialJobs:
    """Makes jobs of trials.

    Attributes:
        place: Where the search is.
        space: What varies.
        settings: How it is searched.
        program: What starts a run; overrides are added to it.
        overrides: What all trials share.
        time_limit: Seconds of a trial; None for no limit.
    """

    place: StudyLocation
    space: SearchSpace
    settings: SearchSettings
    program: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    time_limit: float | None = None

    def job(self, asked: TrialSpec, attempts: int) -> Job:
        """Return the job of a trial, which goes on where an earlier attempt was interrupted."""
        run = self.place.run_of(asked.number)
        log = self.place.log_of(asked.number)
        log.parent.mkdir(parents=True, exist_ok=True)
        return Job(
            key=str(asked.number),
            command=(*self.program, *self.arguments(asked, run, attempts)),
            log=log,
            environment={VARIABLE: json.dumps(self.message(asked.number))},
            time_limit=self.time_limit,
        )

    def arguments(self, asked: TrialSpec, run: Run, attempts: int) -> list[str]:
        """Return a trial's overrides; what an attempt that cannot go on has left is set aside first."""
        if run.status == INTERRUPTED and run.last_checkpoint.exists():
            return resume_words(run)
        if run.path.exists():
            set_aside(run.path, attempts)
        return [*self.overrides, *self.space.overrides(asked.values), f"hydra.run.dir={quote_value(run.path)}"]

    def message(self, number: int) -> dict[str, Any]:
        """Return what a trial needs to report to the study."""
        objective = self.settings.objectives[0]
        return {
            "storage": self.place.storage,
            "study": self.place.study,
            "number": number,
            "metric": objective.name if len(self.settings.objectives) == 1 else None,
            "pruner": self.settings.pruner,
            "pruner_options": dict(self.settings.pruner_options),
        }

    def result(self, asked: TrialSpec) -> TrialResult | None:
        """Return how a trial's run ended; None where it did not come to its end."""
        return read_result(self.place.run_of(asked.number), self.settings.objectives)

    def lives(self, asked: TrialSpec) -> bool:
        """Return whether a trial's run is, as far as this machine can tell, being written by another process."""
        return self.place.run_of(asked.number).status == RUNNING

    def failure(self, asked: TrialSpec, outcome: Outcome) -> TrialResult:
        """Return the result of a trial whose run did not come to its end, with the cause."""
        said = last_words(self.place.log_of(asked.number)) if outcome.code not in (0, None) else ""
        told = outcome.reason if outcome.reason not in (DONE, FAILED) else "ended without a result"
        return TrialResult("failed", cause=said if outcome.reason == FAILED and said else told)


def unless_typed(settings: Mapping[str, str], typed: Sequence[str]) -> list[str]:
    """Return settings as overrides, without those that were typed."""
    return [f"{key}={value}" for key, value in settings.items() if not any(o.startswith(f"{key}=") for o in typed)]


def resume_words(run: Run) -> list[str]:
    """Return what continues the run of a trial or a fold, which reads its folder as this process does."""
    return [f"resume={quote_value(run.path)}", *trust_words()]


def set_aside(folder: Path, attempts: int) -> None:
    """Give a folder another name, so that a new attempt finds none."""
    target = folder.with_name(f"{folder.name}-attempt-{attempts}")
    if target.exists():
        shutil.rmtree(target)
    folder.rename(target)


def read_result(run: Run, objectives: Sequence[SearchObjective]) -> TrialResult | None:
    """Return how a run ended as a trial; None where it did not come to its end."""
    status = run.record.get("status")
    if status == PRUNED:
        return TrialResult("pruned")
    if status != FINISHED:
        return None
    document = read_json(run.metrics_file)
    if document is None:
        return None
    model = document.get("model", {})  # parameters and milliseconds, where they were measured
    measured = {"parameters": model.get("parameters"), "latency": model.get("latency_ms")}
    costs = {name: float(value) for name, value in measured.items() if value is not None}
    values = [value_of(document, costs, each.name) for each in objectives]
    for objective, value in zip(objectives, values, strict=True):
        if value is None:
            return TrialResult("failed", cause=f"{objective.name} is not a number", costs=costs)
    return TrialResult("complete", tuple(value for value in values if value is not None), costs=costs)


def value_of(document: Mapping[str, Any], costs: Mapping[str, float], name: str) -> float | None:
    """Return an objective's value in a run's metrics, that of its saved checkpoint; None where there is no number."""
    if name in NETWORK_COSTS:
        return costs.get(name)
    split, _, metric = name.partition("/")
    value = checkpoint_scores(document, split).get(metric)
    return None if value is None else float(value)
