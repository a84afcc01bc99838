"""A search in Optuna's storage: it is asked for the next trial, told how one ended, and found again after a crash."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from finetune.errors import ConfigError
from finetune.runtime.provenance import process, process_start
from finetune.search.spaces.space import Dimension, SearchSpace, SettingValue
from finetune.search.study.samplers import EXCESS, SearchSettings, build_pruner, build_sampler
from finetune.search.study.stored_names import StoredNames

Ended = Literal["complete", "pruned", "failed", "cancelled"]
STATES: Mapping[TrialState, str] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
_ENDS: Mapping[str, TrialState] = {name: state for state, name in STATES.items()}
SURPLUS, FACTS = "surplus", "facts"


@dataclass(frozen=True)
class TrialSpec:
    """A trial to be run: its number, and the values of the settings that it tries."""

    number: int
    values: Mapping[str, SettingValue]


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        state: complete, pruned or failed; or cancelled, and then it is told to nobody.
        values: Of each objective; empty unless it is complete.
        cause: Why it failed.
        costs: Parameters and latency, where they were measured.
    """

    state: Ended
    values: tuple[float, ...] = ()
    cause: str = ""
    costs: Mapping[str, float] | None = None


class Search:
    """A study, its space and its settings.

    Attributes:
        study: Optuna's.
        storage: Where the study is kept.
        space: What varies.
        settings: How it is searched.
        total: How many trials there are to be.
        names: What the study calls settings and values.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: optuna.storages.BaseStorage,
        space: SearchSpace,
        settings: SearchSettings,
        total: int,
        names: StoredNames | None = None,
    ) -> None:
        """Continue a study, or begin one that has no trials; a grid's combinations are all put into it."""
        self.study = study
        self.storage = storage
        self.space = space
        self.settings = settings
        self.total = total
        self.names = names or StoredNames()
        if settings.sampler == "grid":
            combinations = space.grid()
            self.total = min(total, len(combinations))
            with quiet():
                for values in combinations[len(self.trials()) : self.total]:
                    study.enqueue_trial(self.names.stored(values))

    def trials(self) -> list[FrozenTrial]:
        """Return all trials but those that came after the last."""
        found = self.study.get_trials(deepcopy=False)
        return [trial for trial in found if not trial.user_attrs.get(SURPLUS)]

    def ask(self) -> TrialSpec | None:
        """Return the next trial, or None when there are as many as there are to be."""
        begun = [trial for trial in self.trials() if trial.state != TrialState.WAITING]
        if len(begun) >= self.total:
            return None
        with quiet():
            self.study.sampler = build_sampler(self.settings, len(begun))
            trial = self.study.ask()
            if trial.number >= self.total:  # another machine was faster
                trial.set_user_attr(SURPLUS, True)
                self.study.tell(trial, state=TrialState.FAIL)
                return None
            trial.set_user_attr(FACTS, {"process": process()})
            return self.draw(trial)

    def draw(self, trial: optuna.Trial) -> TrialSpec:
        """Return a trial with its values; one that was left while they were drawn gets the same."""
        drawn = trial.relative_params  # what is drawn together, by the sampler that the trial was made with
        values: dict[str, SettingValue] = {}
        for dimension in self.space.dimensions:
            if self.space.active(dimension, values):
                name = self.names.key(dimension.key)
                if name not in drawn:
                    self.study.sampler = build_sampler(self.settings, trial.number, name)
                values[dimension.key] = suggest(trial, dimension, self.names)
        return TrialSpec(trial.number, values)

    def values_of(self, trial: FrozenTrial) -> dict[str, SettingValue]:
        """Return the values of a trial that has been drawn, by today's names."""
        found: dict[str, SettingValue] = {}
        for dimension in self.space.dimensions:
            name = self.names.key(dimension.key)
            if name in trial.params:
                value = trial.params[name]
                known = (choice.value for choice in dimension.choices)
                found[dimension.key] = next((v for v in known if self.names.value(dimension.key, v) == value), value)
        return found

    def left(self, *, nameless: bool) -> list[TrialSpec]:
        """Return the trials that nobody runs any more, in order; those of other machines are theirs.

        Args:
            nameless: Whether a trial counts whose process was killed before it could say who it was; with other
                machines at work it may be just about to.
        """
        running = [trial for trial in self.trials() if trial.state == TrialState.RUNNING]
        found = [trial for trial in running if is_left(trial, nameless=nameless)]
        asked = []
        with quiet():
            for trial in found:
                self.study.sampler = build_sampler(self.settings, trial.number)
                asked.append(self.draw(self.handle(trial.number)))
        return asked

    def handle(self, number: int) -> optuna.Trial:
        """Return the trial of a number, to be changed."""
        return trial_of(self.study, self.storage, number)

    def note(self, number: int, **facts: Any) -> None:
        """Keep facts about a trial."""
        known = facts_of(self.study.get_trials(deepcopy=False)[number])
        self.handle(number).set_user_attr(FACTS, {**known, **facts})

    def take_over(self, number: int) -> int:
        """Make a trial this process's, and return how often it has been begun before."""
        attempts = int(facts_of(self.study.get_trials(deepcopy=False)[number]).get("attempts", 0))
        self.note(number, process=process(), attempts=attempts + 1)
        return attempts

    def tell(self, number: int, result: TrialResult) -> None:
        """Say how a trial ended, once."""
        facts: dict[str, Any] = {"cause": result.cause} if result.cause else {}
        if result.costs is not None:
            facts["costs"] = dict(result.costs)
        if facts:
            self.note(number, **facts)
        if self.settings.budget:  # by how much costs exceed it, in proportion; what was not measured exceeds it
            costs, budget = result.costs or {}, self.settings.budget.items()
            excess = [costs[name] / most - 1 if name in costs else 1.0 for name, most in budget]
            self.handle(number).set_user_attr(EXCESS, excess)
        with quiet():
            values = list(result.values) if result.state == "complete" else None
            self.study.sampler = build_sampler(self.settings, number, "told")
            self.study.tell(number, values, _ENDS[result.state], skip_if_finished=True)

    def best(self) -> list[FrozenTrial]:
        """Return the best trial within the budget, the earliest of equals; with several objectives the Pareto front."""
        done = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE and within(trial)]
        if not done:
            return []
        signs = [1.0 if each.direction == "max" else -1.0 for each in self.settings.objectives]
        scores = [tuple(sign * value for sign, value in zip(signs, trial.values, strict=True)) for trial in done]
        if len(signs) == 1:
            return [done[scores.index(max(scores))]]
        return [
            trial for trial, score in zip(done, scores, strict=True) if not any(dominates(o, score) for o in scores)
        ]


def facts_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return what is known of a trial beside its values."""
    return dict(trial.user_attrs.get(FACTS, {}))


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether a score is nowhere worse than another and somewhere better; both are better when higher."""
    return all(a >= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def within(trial: FrozenTrial) -> bool:
    """Return whether a trial is within the budget."""
    return all(value <= 0 for value in trial.user_attrs.get(EXCESS, []))


def is_left(trial: FrozenTrial, *, nameless: bool) -> bool:
    """Return whether the process that ran a trial was on this machine and is gone."""
    known = facts_of(trial).get("process")
    if known is None:
        return nameless
    gone = known["process_started"] != process_start(int(known["pid"]))
    return known["host"] == os.uname().nodename and (gone or int(known["pid"]) == os.getpid())


def suggest(trial: optuna.Trial, dimension: Dimension, names: StoredNames) -> SettingValue:
    """Return the value of a setting in a trial."""
    name = names.key(dimension.key)
    if dimension.kind == "choice":
        values = {names.value(dimension.key, choice.value): choice.value for choice in dimension.choices}
        return values[trial.suggest_categorical(name, list(values))]
    if dimension.kind == "whole":
        return trial.suggest_int(
            name, int(dimension.low), int(dimension.high), step=int(dimension.step or 1), log=dimension.log
        )
    return trial.suggest_float(name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def trial_of(study: optuna.Study, storage: optuna.storages.BaseStorage, number: int) -> optuna.Trial:
    """Return a trial by its number, in whatever process."""
    identity = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study.study_name), number)
    return optuna.trial.Trial(study, identity)


def create_study(storage: optuna.storages.BaseStorage, name: str, settings: SearchSettings) -> optuna.Study:
    """Return a new study."""
    words = {"max": optuna.study.StudyDirection.MAXIMIZE, "min": optuna.study.StudyDirection.MINIMIZE}
    with quiet():
        return optuna.create_study(
            storage=storage,
            study_name=name,
            directions=[words[each.direction] for each in settings.objectives],
            sampler=build_sampler(settings, 0),
            pruner=build_pruner(settings.pruner, settings.pruner_options),
        )


def load_study(storage: optuna.storages.BaseStorage, name: str | None, place: str) -> optuna.Study:
    """Return a study that is there; without a name, the only one.

    Raises:
        ConfigError: There is none, or more than one.
    """
    known = [each.study_name for each in storage.get_all_studies()]
    if name is None and len(known) == 1:
        name = known[0]
    if name is None or name not in known:
        there = ", ".join(sorted(known)[-5:]) or "no sweep"
        raise ConfigError(f"{place} holds {there}; which is meant? Type sweep.name=NAME.")
    with quiet():
        return optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler())


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out Optuna's notes about what is experimental, and about values that a repeated trial reports again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
