"""A search in its storage: reproducible at one slot whatever the sampler, also when it was killed between writes."""

from pathlib import Path

import optuna
import pytest

from finetune.errors import ConfigError
from finetune.search.spaces.grammar import build_space
from finetune.search.spaces.space import SearchSpace
from finetune.search.study.samplers import (
    SAMPLERS,
    SearchObjective,
    SearchSettings,
    build_sampler,
    check_search_settings,
    read_objectives,
)
from finetune.search.study.storage import open_storage
from finetune.search.study.study import Search, TrialResult, TrialSpec, create_study, load_study, quiet, trial_of

ACCURACY = (SearchObjective("val/accuracy", "max"),)
OPTIONS = {"tpe": {"n_startup_trials": 3, "multivariate": True, "group": True}, "gp": {"n_startup_trials": 3},
           "nsga2": {"population_size": 3}}  # fmt: skip


def space(*typed: str, conditional: bool = False) -> SearchSpace:
    """Return a space; `k` is tried under a condition where that is asked for."""
    when = {"k": {"s": "a"}} if conditional else {}
    return build_space({}, when, typed, options=lambda _: [], base=lambda _: None)


def begin(place: object, varied: SearchSpace, settings: SearchSettings, total: int) -> Search:
    """Return a new search that is kept at a place."""
    storage = open_storage(str(place))
    return Search(create_study(storage, "x", settings), storage, varied, settings, total)


def score(asked: TrialSpec) -> float:
    """Return a score that is a function of the values."""
    return -sum(float(value) if isinstance(value, int | float) else len(str(value)) for value in asked.values.values())


def finish(search: Search, number: int | None = None) -> list[TrialSpec]:
    """Run trials to the end of the search, or so many."""
    done = []
    while (number is None or len(done) < number) and (asked := search.ask()) is not None:
        search.tell(asked.number, TrialResult("complete", (score(asked),)))
        done.append(asked)
    return done


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "cmaes"])
@pytest.mark.parametrize("written", [0, 1, 3])
def test_a_killed_search_draws_what_it_would_have_drawn(tmp_path: Path, name: str, written: int) -> None:
    if name == "gp" and written == 1:
        pytest.skip("Optuna's GP counts what it was about to try itself, and then draws another point")
    varied = space("s=a,b", "k=range(1,9)", "n=range(1,4)", conditional=True)
    settings = SearchSettings(ACCURACY, name, OPTIONS.get(name, {}))
    whole = finish(begin(tmp_path / "whole", varied, settings, 9))
    storage = open_storage(str(tmp_path / "broken"))
    search = Search(create_study(storage, "x", settings), storage, varied, settings, 9)
    done = finish(search, 5)
    with quiet():
        search.study.sampler = build_sampler(settings, 5)
        begun = search.study.ask()
        if written:  # values that were drawn before the kill
            keys = list(whole[5].values)[:written]
            for dimension in varied.dimensions:
                if dimension.key in keys:
                    partial = SearchSpace(tuple(each for each in varied.dimensions if each.key in keys))
                    Search(search.study, storage, partial, settings, 9).draw(begun)
                    break
    reopened = open_storage(str(tmp_path / "broken"))
    again = Search(load_study(reopened, "x", ""), reopened, varied, settings, 9)
    (left,) = again.left(nameless=True)
    again.tell(left.number, TrialResult("complete", (score(left),)))
    assert [*done, left, *finish(again)] == whole


def test_a_grid_tries_each_combination_once_in_order(tmp_path: Path) -> None:
    varied = space("s=a,b", "k=1,2,3", conditional=True)
    settings = SearchSettings(ACCURACY, "grid")
    search = begin(tmp_path / "log", varied, settings, 100)
    assert search.total == 4
    assert [dict(asked.values) for asked in finish(search)] == varied.grid()


def test_trials_are_a_total_and_another_machine_s_surplus_does_not_count(tmp_path: Path) -> None:
    settings = SearchSettings(ACCURACY, "random")
    search = begin(tmp_path / "log", space("k=1,2"), settings, 3)
    search.study.ask()  # by another machine, just now
    assert len(finish(search)) == 2
    assert search.ask() is None
    assert search.left(nameless=False) == []
    assert len(search.left(nameless=True)) == 1


def test_the_best_is_within_the_budget_and_the_earliest_of_equals(tmp_path: Path) -> None:
    settings = SearchSettings(ACCURACY, "random", budget={"parameters": 100.0})
    search = begin(tmp_path / "log", space("k=1,2"), settings, 9)
    for value, parameters in ((0.5, 90.0), (0.9, 101.0), (0.7, 100.0), (0.7, 50.0)):
        asked = search.ask()
        assert asked is not None
        search.tell(asked.number, TrialResult("complete", (value,), costs={"parameters": parameters}))
    assert [trial.number for trial in search.best()] == [2]


def test_a_trial_is_found_by_its_number_in_any_process(tmp_path: Path) -> None:
    settings = SearchSettings(ACCURACY)
    study = create_study(open_storage(str(tmp_path / "log")), "x", settings)
    study.ask()
    number = study.ask().number
    reopened = open_storage(str(tmp_path / "log"))
    trial_of(load_study(reopened, "x", ""), reopened, number).report(0.5, 3)
    assert study.get_trials()[number].intermediate_values == {3: 0.5}


def test_sqlite_is_a_storage_too(tmp_path: Path) -> None:
    settings = SearchSettings(ACCURACY, "random")
    place = f"sqlite:///{tmp_path / 'sweep.db'}"
    finish(begin(place, space("k=1,2,x"), settings, 3))
    with pytest.raises(ConfigError, match=r"sweep\.name"):
        load_study(open_storage(place), "y", place)
    assert len(load_study(open_storage(place), None, place).get_trials()) == 3


def test_directions_follow_the_metric_and_the_test_split_decides_nothing() -> None:
    found = read_objectives(["val/f1_macro", "val/loss", "latency"], None, monitor="val/accuracy", mode="max")
    assert [each.direction for each in found] == ["max", "min", "min"]
    assert read_objectives(None, None, monitor="val/x", mode="min") == (SearchObjective("val/x", "min"),)
    for metric, direction, expected in (
        ("test/accuracy", None, "val/accuracy"),
        ("latncy", None, "'latency'"),
        (["val/loss"], ["max", "min"], "one for each"),
        ("val/loss", "mn", "'min'"),
        (["val/loss", "val/loss"], None, "each once"),
    ):
        with pytest.raises(ConfigError, match=expected):
            read_objectives(metric, direction, monitor="val/accuracy", mode="max")


def test_cmaes_takes_numbers_alone() -> None:
    pytest.importorskip("cmaes")
    settings = SearchSettings(ACCURACY, "cmaes")
    check_search_settings(settings, space("a=interval(0,1)", "b=range(1,9)"))
    for typed in (["a=interval(0,1)", "b=x,y"], ["a=interval(0,1)"]):
        with pytest.raises(ConfigError, match="sweep=tpe"):
            check_search_settings(settings, space(*typed))


def test_the_number_of_trials_survives_a_failed_one(tmp_path: Path) -> None:
    settings = SearchSettings(ACCURACY, "random")
    search = begin(tmp_path / "log", space("k=1,2"), settings, 2)
    asked = search.ask()
    assert asked is not None
    search.tell(asked.number, TrialResult("failed", cause="thirteen"))
    assert len(finish(search)) == 1
    states = [trial.state for trial in search.trials()]
    assert states == [optuna.trial.TrialState.FAIL, optuna.trial.TrialState.COMPLETE]
