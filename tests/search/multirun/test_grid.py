"""A grid of jobs: Hydra's grammar, a checked configuration for each, and a folder of its own."""

from pathlib import Path

import pytest

from finetune.config.compose import register
from finetune.errors import ConfigError
from finetune.runs.run import Run
from finetune.search.multirun.grid import expand_grid, plan_jobs, without_pool

register()


@pytest.mark.parametrize(
    ("overrides", "jobs"),
    [
        (["seed=1,2"], [["seed=1"], ["seed=2"]]),
        (["seed=choice(1,2)", "mode=max"], [["seed=1", "mode=max"], ["seed=2", "mode=max"]]),
        (["seed=range(1,4)"], [["seed=1"], ["seed=2"], ["seed=3"]]),
        (["a=1,2", "b=x,y"], [["a=1", "b=x"], ["a=1", "b=y"], ["a=2", "b=x"], ["a=2", "b=y"]]),
        (["tags=[a,b]"], [["tags=[a,b]"]]),
    ],
)
def test_grid_is_what_hydra_means(overrides: list[str], jobs: list[list[str]]) -> None:
    assert expand_grid(overrides) == jobs


def test_settings_of_the_pool_are_not_handed_to_the_jobs() -> None:
    typed = ["seed=0,1", "pool.devices=[0,1]", "pool=slurm", "++pool.parameters.account=lab", "name=pool.x"]
    assert without_pool(typed) == (["seed=0,1", "name=pool.x"], typed[1:4])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["strategy=frozen,frozn"], "strategy"),
        (["optimizer.lrr=1,2"], r"optimizer\.lr"),
        (["data=folder", "seed=0,1"], r"data\.root is not set"),
        (["data.batchsize=1,2"], r"data\.batch_size"),
        (["seed=1,2", "hydra/launcher=joblib"], "process of its own"),
        (["a=b=c(", "seed=1,2"], "cannot be read"),
    ],
)
def test_one_wrong_job_is_told_before_any_starts(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plan_jobs("train", None, overrides)


def test_every_job_has_a_folder_of_its_own_also_where_all_have_one_name() -> None:
    plans = plan_jobs("train", None, ["name=same", "seed=range(0,11)"])
    folders = [plan.folder for plan in plans]
    assert len(set(folders)) == 11
    assert {folder.parent for folder in folders if folder} == {Path("runs/same")}
    assert [str(folder)[-3:] for folder in folders][:3] == ["_00", "_01", "_02"]
    assert all(f"hydra.run.dir='{plan.folder}'" in plan.overrides for plan in plans)


def test_a_folder_with_odd_characters_reaches_the_job_as_it_is() -> None:
    (plan,) = plan_jobs("train", None, [r"runs='it\'s a folder'", "name=x"])
    (placed,) = (text for text in plan.overrides if text.startswith("hydra.run.dir="))
    assert placed.startswith(r"hydra.run.dir='it\'s a folder/x/")
    (again,) = plan_jobs("train", None, [placed])
    assert again.folder == plan.folder


def test_jobs_that_would_share_a_typed_folder_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 jobs would share"):
        plan_jobs("train", None, ["hydra.run.dir=runs/one", "seed=0,1"])
    plans = plan_jobs("train", None, ["hydra.run.dir=runs/seed_${seed}", "seed=0,1"])
    assert [plan.folder for plan in plans] == [Path("runs/seed_0"), Path("runs/seed_1")]


def test_continued_runs_keep_their_folders(tmp_path: Path) -> None:
    runs = [Run.create(tmp_path / "a" / name, config={}, command=[], seed=0) for name in ("one", "two")]
    plans = plan_jobs("train", None, [f"runs={tmp_path}", "resume=one,two"])
    assert [plan.folder for plan in plans] == [run.path for run in runs]
    assert not any(text.startswith("hydra.run.dir") for plan in plans for text in plan.overrides)
    with pytest.raises(ConfigError, match="would share"):
        plan_jobs("train", None, [f"runs={tmp_path}", "resume=one", "trainer.threads=1,2"])


def test_a_job_is_told_by_what_the_others_do_not_have() -> None:
    plans = plan_jobs("train", None, ["strategy=frozen", "seed=0,1", "optimizer.lr=1e-3"])
    assert [plan.what for plan in plans] == ["seed=0", "seed=1"]


def test_commands_that_make_no_run_have_no_folder() -> None:
    plans = plan_jobs("evaluate", None, ["run=a,b"])
    assert [plan.folder for plan in plans] == [None, None]


def test_a_configuration_or_an_experiment_brings_its_own_sweep(tmp_path: Path) -> None:
    params = "hydra:\n  sweeper:\n    params:\n      seed: 3,4\n"
    (tmp_path / "experiment").mkdir()
    (tmp_path / "mine.yaml").write_text(f"defaults: [train, _self_]\n{params}")
    (tmp_path / "experiment" / "seeds.yaml").write_text(f"# @package _global_\n{params}")
    for name, overrides in (("mine", []), ("train", ["experiment=seeds"])):
        plans = plan_jobs(name, str(tmp_path), overrides)
        assert [plan.what for plan in plans] == ["seed=3", "seed=4"]
