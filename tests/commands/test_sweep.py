"""A sweep as a user meets it: real processes, with trials that take a tenth of a second each."""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from light_sweep import ledger, start, stopped, sweep

from finetune.commands.sweep import run_sweep
from finetune.config.compose import conf_dir, register, to_dict
from finetune.errors import ConfigError

register()
LR = "optimizer.lr='tag(log,interval(1e-5,1e-1))'".replace("'", "")
TPE = ["strategy=full", LR, "sweep.sampler_options.n_startup_trials=3", "pool.devices=1"]


def folder_of(root: Path) -> Path:
    """Return the folder of the only sweep."""
    (found,) = root.glob("sweeps/*/*/")
    return found


def table(root: Path) -> list[dict[str, str]]:
    """Return the rows of sweep.csv."""
    with (folder_of(root) / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def record(root: Path) -> dict[str, Any]:
    """Return sweep.json."""
    return dict(json.loads((folder_of(root) / "sweep.json").read_text()))


def essence(root: Path) -> list[tuple[str, ...]]:
    """Return what two runs of the same sweep have in common."""
    return [(row["trial"], row["state"], row["optimizer.lr"], row["val/accuracy"]) for row in table(root)]


def test_trials_that_raise_die_hang_or_have_no_score_fail_alone(tmp_path: Path) -> None:
    code, said = sweep(
        "sweep=grid", "seed=13,14,15,16,0", "sweep.trial_timeout=2", "pool.devices=2", "pool.grace=1", folder=tmp_path
    )
    assert code == 0, said
    found = {int(row["seed"]): row for row in table(tmp_path)}
    assert {seed: row["state"] for seed, row in found.items()} == {
        13: "failed", 14: "failed", 15: "failed", 16: "failed", 0: "complete",
    }  # fmt: skip
    assert "thirteen" in found[13]["cause"]
    assert "SIGKILL" in found[14]["cause"]
    assert "time limit" in found[15]["cause"]
    assert "not a number" in found[16]["cause"]
    for seed in (13, 14, 15, 16):
        assert f"Trial {found[seed]['trial']} failed: {found[seed]['cause']} (" in said
    assert record(tmp_path)["trials"] == {"total": 5, "failed": 4, "complete": 1}


def test_exit_code_is_1_where_every_trial_has_failed(tmp_path: Path) -> None:
    code, said = sweep("sweep=grid", "optimizer.lr=1e-3,1e-4", "seed=13", folder=tmp_path)
    assert code == 1
    assert said.count("thirteen") >= 2


def test_failed_trials_are_run_again_only_so_often(tmp_path: Path) -> None:
    code, said = sweep(
        "sweep=grid", "seed=17,13", "sweep.on_failure=retry", "sweep.retries=2", "pool.devices=1", folder=tmp_path
    )
    assert code == 0, said
    assert [(row["seed"], row["state"], row["attempts"]) for row in table(tmp_path)] == [
        ("17", "complete", "2"), ("13", "failed", "3"),
    ]  # fmt: skip
    assert ledger(tmp_path).count("begin 1") == 3


def test_a_failure_may_end_the_sweep_and_a_resume_goes_on(tmp_path: Path) -> None:
    words = ["sweep=grid", "seed=0,13,1,2", "sweep.on_failure=stop", "pool.devices=1"]
    code, said = sweep(*words, folder=tmp_path)
    assert code == 1, said
    assert [row["state"] for row in table(tmp_path)] == ["complete", "failed"]
    code, said = sweep("resume=last", "sweep.on_failure=continue", folder=tmp_path)
    assert code == 0, said
    assert [row["state"] for row in table(tmp_path)] == ["complete", "failed", "complete", "complete"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that nobody has stopped."""
    folder = tmp_path_factory.mktemp("whole")
    code, said = sweep(*TPE, "sweep.trials=8", folder=folder)
    assert code == 0, said
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("lines", [3, 8, 11])
def test_kill_9_and_resume_equals_the_uninterrupted_sweep(tmp_path: Path, uninterrupted: Path, lines: int) -> None:
    process = start(*TPE, "sweep.trials=8", folder=tmp_path, LIGHT_SECONDS="0.2")
    code, _ = stopped(process, signal.SIGKILL, lambda: len(ledger(tmp_path)) >= lines)
    assert code == -signal.SIGKILL
    code, said = sweep("resume=last", folder=tmp_path)
    assert code == 0, said
    assert essence(tmp_path) == essence(uninterrupted)
    ends = [line for line in ledger(tmp_path) if line.startswith("end")]
    assert sorted(ends) == sorted(f"end {number}" for number in range(8)), "every trial ran exactly once to the end"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_ends_its_trials_and_goes_on(
    tmp_path: Path, uninterrupted: Path, number: signal.Signals, code: int
) -> None:
    process = start(*TPE, "sweep.trials=8", folder=tmp_path, LIGHT_SECONDS="0.5")
    found, said = stopped(process, number, lambda: len(ledger(tmp_path)) >= 3)
    assert found == code, said
    assert f"resume={folder_of(tmp_path)}" in said
    assert record(tmp_path)["status"] == "interrupted"
    assert [row["state"] for row in table(tmp_path)] == ["complete", "running"]
    code, said = sweep("resume=last", folder=tmp_path)
    assert code == 0, said
    assert essence(tmp_path) == essence(uninterrupted)


def test_a_result_that_the_killed_sweep_did_not_see_is_taken(tmp_path: Path, uninterrupted: Path) -> None:
    sweep(*TPE, "sweep.trials=3", folder=tmp_path)
    journal = folder_of(tmp_path) / "journal.log"
    lines = journal.read_text().splitlines(keepends=True)
    told = max(number for number, line in enumerate(lines) if '"state": 1' in line or '"state":1' in line)
    journal.write_text("".join(lines[:told]))
    code, said = sweep("resume=last", "sweep.trials=8", folder=tmp_path)
    assert code == 0, said
    assert ledger(tmp_path).count("begin 2") == 1
    assert essence(tmp_path) == essence(uninterrupted)


def test_trials_are_a_total_and_a_resume_refuses_another_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["sweep=random", "strategy=full", LR, "pool.devices=2"]
    assert sweep(*words, "sweep.trials=2", folder=tmp_path)[0] == 0
    assert sweep("resume=last", "sweep.trials=3", LR, "strategy=full", folder=tmp_path)[0] == 0
    assert len(table(tmp_path)) == 3
    monkeypatch.chdir(tmp_path)
    for override, expected in (
        ("optimizer.lr=1e-3,1e-4", r"optimizer.lr was tag\(log, .*\) and is choice\(0.001, 0.0001\)"),
        ("strategy=frozen", "strategy was strategy=full and is strategy=frozen"),
        ("space=regularisation", "model.drop_rate is new"),
        ("sweep=tpe", "another search"),
    ):
        with pytest.raises(ConfigError, match=expected):
            run_sweep(["--config-name", "sweep", "resume=last", override])
    assert len(table(tmp_path)) == 3


def test_pruned_trials_are_told_apart(tmp_path: Path) -> None:
    words = ["sweep=grid", "strategy=full", "optimizer.lr=1e-3,1e-1", "sweep.pruner=median",
             "+sweep.pruner_options.n_startup_trials=1", "pool.devices=1"]  # fmt: skip
    code, said = sweep(*words, folder=tmp_path, LIGHT_REPORTS="1")
    assert code == 0, said
    assert [(row["state"], row["reports"]) for row in table(tmp_path)] == [("complete", "3"), ("pruned", "1")]


@pytest.mark.slow
def test_two_machines_share_a_storage_and_run_each_trial_once(tmp_path: Path) -> None:
    words = ["sweep=random", "strategy=full", LR, "sweep.trials=10", "pool.devices=1"]
    first = start(*words, folder=tmp_path, LIGHT_SECONDS="1.5")
    other = tmp_path / "other"
    other.mkdir()
    while not ledger(tmp_path):
        assert first.poll() is None
    code, said = sweep(f"join={folder_of(tmp_path) / 'journal.log'}", folder=other)
    assert code == 0, said
    assert first.wait(timeout=60) == 0
    ends = [line for line in [*ledger(tmp_path), *ledger(other)] if line.startswith("end")]
    assert sorted(ends) == sorted(f"end {number}" for number in range(10))
    assert ledger(tmp_path) and ledger(other)
    first.communicate()


def test_the_best_is_repeated_by_one_command(tmp_path: Path) -> None:
    words = ["sweep=grid", "strategy=frozen,lora", "strategy.lr=1e-2,1e-3", "loss=focal", "tags=[a,b]",
             "experiment=digits_strong", "+optimizer.options.eps=1e-6"]  # fmt: skip
    code, said = sweep(*words, folder=tmp_path)
    assert code == 0, said
    (best,) = record(tmp_path)["best"]
    assert best["command"] in said
    typed = get_args_parser().parse_args(best["command"].split()[1:])
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        short = compose("train", [f"hydra.searchpath=['file://{typed.config_dir}']", *typed.overrides])
        assert to_dict(short) == to_dict(compose("train", best["overrides"]))


def test_several_objectives_give_a_pareto_front_within_the_budget(tmp_path: Path) -> None:
    words = ["sweep=nsga2", "sweep.metric=[val/accuracy,parameters]", "strategy=full", LR, "sweep.trials=6",
             "sweep.budget.parameters=450", "pool.devices=1"]  # fmt: skip
    code, said = sweep(*words, folder=tmp_path)
    assert code == 0, said
    rows = [row for row in table(tmp_path) if float(row["parameters"]) <= 450]
    points = {int(row["trial"]): (float(row["val/accuracy"]), -float(row["parameters"])) for row in rows}
    front = {
        number
        for number, (a, b) in points.items()
        if not any(x >= a and y >= b and (x, y) != (a, b) for x, y in points.values())
    }
    assert {best["number"] for best in record(tmp_path)["best"]} == front
    assert [row["within_budget"] for row in table(tmp_path)] == ["True"] * 5 + ["False"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "Nothing varies"),
        (["space=lr", "sweep.metric=test/accuracy"], "val/accuracy"),
        (["optimizer.lrr=1,2"], "'optimizer.lr'"),
        (["strategy.rank=2,4", "strategy=frozen,lora"], "when:"),
        (["strategy=frozen,lroa"], "'lora'"),
        (["space=lrr"], "'lr'"),
        (["space=lr", "sweep.trails=3"], "'sweep.trials'"),
        (["space=lr", "sweep.sampler=tep"], "'tpe'"),
        (["space=lr", "+sweep.sampler_options.gama=1"], "'gamma'"),
        (["space=lr", "sweep.pruner=medain"], "'median'"),
        (["space=lr", "sweep.trials=0"], "sweep.trials=0"),
        (["space=strategy", "sweep=cmaes"], "sweep=tpe"),
        (["space=lr", "sweep=grid"], "sweep=random"),
        (["space=lr", "sweep.metric=[val/accuracy,latency]", "sweep.pruner=median"], "Use none"),
        (["space=lr", "seed=-1"], "seed=-1"),
        (["space=lr", "hydra.run.dir=x"], "folder of its own"),
        (["space=lr", "sweep.on_failure=resume"], "sweep.on_failure"),
        (["space=lr", "sweep.in_process=ture"], "'true'"),
        (["space=lr", "sweep.in_process=true"], "lp_ft moves more than the head"),
        (["space=lr", "export=wadb"], "'wandb'"),
        (["space=strategy", "export=wandb"], "no conditions"),
        (["join=nowhere"], "storage"),
        (["resume=lst"], "'last'|no sweep"),
        (["space=lr", "pool.devices=none"], "pool.devices"),
    ],
)
def test_what_is_wrong_is_one_line_before_any_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=expected) as raised:
        run_sweep(["--config-name", "sweep", *words])
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir()), "a refused sweep leaves nothing behind"
