"""A trial as a job: an ordinary command line, which goes on where an attempt was interrupted, and its result."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.cli import with_resumed_folder
from finetune.config.quoting import quote_value
from finetune.runs.run import Run, write_json
from finetune.search.pools.jobs import Outcome
from finetune.search.spaces.grammar import build_space
from finetune.search.study.samplers import SearchObjective, SearchSettings
from finetune.search.study.study import TrialResult, TrialSpec
from finetune.search.study.trials import VARIABLE, StudyLocation, TrialJobs, read_result

OBJECTIVES = (SearchObjective("val/accuracy", "max"), SearchObjective("latency", "min"))
ASKED = TrialSpec(7, {"optimizer.lr": 1e-05, "head": "mlp"})


def jobs(folder: Path, *objectives: SearchObjective) -> TrialJobs:
    """Return what makes jobs of the trials of a sweep in a folder."""
    typed = ["optimizer.lr=interval(1e-6,1)", "head=mlp,linear"]
    space = build_space({}, {}, typed, options=lambda _: [], base=lambda _: None)
    place = StudyLocation(folder, str(folder / "journal.log"), "a/b")
    settings = SearchSettings(objectives or OBJECTIVES[:1], pruner="median")
    return TrialJobs(place, space, settings, ("finetune",), ("data=digits",), 60.0)


def run_in(folder: Path, status: str, document: dict[str, Any] | None = None) -> Run:
    """Return the run of trial 7, which stands so."""
    run = Run.create(folder / "trials" / "0007", config={}, command=[], seed=0)
    run.update(status=status)
    if document is not None:
        write_json(run.metrics_file, document)
    return run


def test_a_new_trial_is_an_ordinary_run_in_its_own_folder(tmp_path: Path) -> None:
    job = jobs(tmp_path).job(ASKED, 0)
    folder = f"hydra.run.dir='{tmp_path / 'trials' / '0007'}'"
    assert job.command == ("finetune", "data=digits", "optimizer.lr=1e-05", "head=mlp", folder)
    assert (job.key, job.log, job.time_limit) == ("7", tmp_path / "logs" / "0007.log", 60.0)
    message = json.loads(job.environment[VARIABLE])
    assert (message["number"], message["metric"], message["pruner"]) == (7, "val/accuracy", "median")


def test_trials_by_several_metrics_report_none(tmp_path: Path) -> None:
    assert json.loads(jobs(tmp_path, *OBJECTIVES).job(ASKED, 0).environment[VARIABLE])["metric"] is None


@pytest.mark.parametrize("name", ["sweep", "it's a \\sweep, 2"])
def test_an_interrupted_attempt_goes_on_and_any_other_is_set_aside(tmp_path: Path, name: str) -> None:
    tmp_path = tmp_path / name
    run = run_in(tmp_path, "interrupted")
    run.last_checkpoint.touch()
    resumed = list(jobs(tmp_path).job(ASKED, 1).command[1:])
    assert f"hydra.run.dir={quote_value(run.path)}" in with_resumed_folder(resumed)
    run.update(status="failed")
    assert jobs(tmp_path).job(ASKED, 1).command[1] == "data=digits"
    assert not run.path.exists()
    assert Run(run.path.with_name("0007-attempt-1")).status == "failed"


@pytest.mark.parametrize(
    ("status", "accuracy", "expected"),
    [
        ("finished", 0.5, TrialResult("complete", (0.5, 3.0), costs={"parameters": 10.0, "latency": 3.0})),
        ("finished", None, "val/accuracy is not a number"),
        ("pruned", 0.5, TrialResult("pruned")),
        ("running", 0.5, None),
        ("failed", 0.5, None),
    ],
)
def test_the_score_is_that_of_the_finished_run_on_validation(
    tmp_path: Path, status: str, accuracy: float | None, expected: TrialResult | str | None
) -> None:
    document = {"val": {"accuracy": {"value": accuracy}}, "test": {"accuracy": {"value": 0.9}},
                "model": {"parameters": 10, "latency_ms": 3.0}}  # fmt: skip
    found = read_result(run_in(tmp_path, status, document), OBJECTIVES)
    if isinstance(expected, str):
        assert found is not None
        assert (found.state, found.cause) == ("failed", expected)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("code", "reason", "cause"),
    [
        (1, "failed", "The run failed: it rained."),
        (-9, "killed by signal SIGKILL", "killed by signal SIGKILL"),
        (143, "exceeded its time limit of 60 s", "exceeded its time limit of 60 s"),
        (None, "never started: no such file", "never started: no such file"),
        (0, "done", "ended without a result"),
    ],
)
def test_the_cause_of_a_failure_is_what_killed_it_or_its_last_words(
    tmp_path: Path, code: int | None, reason: str, cause: str
) -> None:
    log = tmp_path / "logs" / "0007.log"
    log.parent.mkdir()
    log.write_text("Epoch 1\nfinetune: The run failed: it rained.\nsome library's last line\n")
    outcome = Outcome("7", code, reason, "cpu:0", 0.0, 1.0)
    assert jobs(tmp_path).failure(ASKED, outcome).cause == cause
