"""What a sweep leaves behind: plots that need no network, a record in W&B, and a sweep file for W&B's agents."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wandb_log
import yaml
from hydra import compose, initialize_config_dir
from light_sweep import start
from wandb_server import KEY, listening

from finetune.commands.sweep import run_sweep
from finetune.config.compose import conf_dir, register, to_dict
from finetune.runs.run import Run
from finetune.search.command_line import read_request
from finetune.search.results.summary import sort_out
from finetune.search.results.wandb_export import wandb_sweep
from finetune.search.sweep_plan import make_sweep_plan

register()


@pytest.mark.slow
def test_the_page_stands_alone_and_w_and_b_has_a_record(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ["strategy=full", "optimizer.lr=tag(log,interval(1e-5,1e-1))", "loss.label_smoothing=interval(0.0,0.2)",
             "optimizer.name=adamw,lion", "sweep.trials=6", "logger=wandb", "sweep.page=true"]  # fmt: skip
    process = start(*words, folder=tmp_path, LIGHT_REPORTS="1")
    said = process.communicate(timeout=200)[0]
    assert process.returncode == 0, said
    (page,) = tmp_path.glob("sweeps/*/*/sweep.html")
    text = page.read_text()
    assert page.stat().st_size < 5e6
    assert text.count("<svg") == 5, re.findall("Not drawn[^<]*", text)
    assert not re.search(r"(src|href)=.http|@import|url\(http", text)
    assert all(word in text for word in ("experiment=best", "optimizer.lr", "Importance", "lion"))
    (record,) = wandb_log.read_logs(page.parent)
    assert (record.job_type, record.group) == ("sweep", f"{page.parent.parent.name}/{page.parent.name}")
    assert record.summary["trials/complete"] == 6
    assert "best/val/accuracy" in record.summary
    assert record.exit_code == 0


def test_a_w_and_b_sweep_has_the_same_space_and_its_agents_can_start_runs() -> None:
    words = ["sweep=asha", "optimizer.lr=tag(log,interval(1e-5,1e-1))", "strategy.epochs=range(2,9,3)",
             "seed=range(0,3)", "augment=light,none", "data.batch_size=tag(log,int(interval(8,64)))",
             "strategy=full", "sweep.trials=9", "loss.label_smoothing=0.0,0.1"]  # fmt: skip
    document = wandb_sweep(make_sweep_plan(read_request(["--config-name", "sweep", *words])))
    assert (document["method"], document["run_cap"]) == ("bayes", 9)
    assert document["metric"] == {"name": "val/accuracy", "goal": "maximize"}
    assert document["early_terminate"] == {"type": "hyperband", "min_iter": 1, "eta": 3}
    assert document["parameters"] == {
        "optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
        "strategy.epochs": {"values": [2, 5, 8]},
        "seed": {"distribution": "int_uniform", "min": 0, "max": 2},
        "augment": {"values": ["light", "none"]},
        "data.batch_size": {"distribution": "q_log_uniform_values", "min": 8, "max": 64, "q": 1},
        "loss.label_smoothing": {"values": [0.0, 0.1]},
    }
    chosen = {"optimizer.lr": 0.001, "strategy.epochs": 5, "seed": 1, "augment": "none", "data.batch_size": 16,
              "loss.label_smoothing": 0.1}  # fmt: skip
    arguments = [f"{key}={value}" for key, value in chosen.items()]  # as an agent fills in ${args_no_hyphens}
    command = [word for word in document["command"] if not word.startswith("$")] + arguments
    assert command[0] == "finetune"
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = to_dict(compose("train", command[1:]))
    assert (config["strategy"]["name"], config["strategy"]["epochs"], config["seed"]) == ("full", 5, 1)


@pytest.mark.slow
def test_the_agent_of_w_and_b_starts_ordinary_runs_from_the_exported_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    light = ["strategy=frozen", "model.name=test_efficientnet", "model.weights=none", "data.image_size=32",
             "bootstrap=0", "strategy.epochs=1", f"cache.dir={tmp_path / 'cache'}"]  # fmt: skip
    words = [*light, "sweep=random", "sweep.name=mine", "optimizer.lr=1e-3,1e-2", "export=wandb"]
    assert run_sweep(["--config-name", "sweep", *words]) == 0
    with listening() as backend:
        backend.waiting = [{"optimizer.lr": 1e-3}, {"optimizer.lr": 1e-2}]
        environment = {**os.environ, "WANDB_BASE_URL": backend.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online",
                       "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # fmt: skip
        for words in (["sweep", "mine.sweep.yaml", "--project", "bees"], ["agent", "tester/bees/sweep0"]):
            found = subprocess.run(
                ["wandb", *words], env=environment, capture_output=True, text=True, timeout=200, check=False
            )
            assert found.returncode == 0, found.stdout + found.stderr
        assert backend.unknown == []
        rates = [run.settings()["optimizer"]["lr"] for run in backend.runs.values()]
    assert sorted(rates) == [1e-3, 1e-2], found.stdout + found.stderr
    runs = Run.all(tmp_path / "runs")
    assert [(run.status, run.config["optimizer"]["lr"]) for run in runs] == [("finished", 1e-3), ("finished", 1e-2)]


def test_export_writes_the_file_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_sweep(["--config-name", "sweep", "space=lr", "sweep.name=mine", "export=wandb"]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["mine.sweep.yaml"]
    assert "wandb sweep mine.sweep.yaml" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "mine.sweep.yaml").read_text())["name"] == "mine"


def test_overrides_are_sorted_into_what_a_file_can_say() -> None:
    chosen, values, left = sort_out(
        ["head=mlp", "head.hidden=64", "+optimizer.options.eps=1e-6", "~tags", "debug=quick"]
    )
    assert chosen == {"head": "mlp"}
    assert values == {"head": {"hidden": 64}, "optimizer": {"options": {"eps": 1e-6}}}
    assert left == ["~tags", "debug=quick"]
