"""Former names work wherever they are typed, and it is said once what to type now."""

from pathlib import Path
from typing import Any

import pytest
from command import finetune
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from finetune.config.aliases import (
    RENAMED_KEYS,
    move_strays,
    register_source,
    rename_config,
    rename_overrides,
    rename_space,
    tell_once,
)
from finetune.config.compose import conf_dir, register
from finetune.errors import ConfigError
from finetune.search.command_line import read_request, request_of
from finetune.search.multirun.grid import plan_jobs
from finetune.search.sweep_plan import make_sweep_plan

TYPED = [
    ("noise=mixup", "label_noise=mixup"),
    ("interpolate=[0.5]", "wise_ft=[0.5]"),
    ("ood.accept=0.9", "ood.tpr=0.9"),
    ("features.test_views=2", "tta_views=2"),
    ("data.imbalance=oversample", "imbalance=oversample"),
    ("head.solver=means", "head.solver=nearest_mean"),
    ("head.solver=samme", "head.solver=adaboost"),
    ("model=mobile", "model=efficientnet_lite0"),
    ("optimizer=mae", "optimizer=adamw_mae"),
]


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Say again what was said in another test."""
    register()
    register_source()
    tell_once.cache_clear()


def composed(folder: Path | None, *overrides: str) -> Any:
    """Return the configuration of a run with the user's own folder of configurations."""
    search = [f"hydra.searchpath=['file://{folder}']"] if folder else []
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", [*search, *overrides])


@pytest.mark.parametrize(("old", "new"), TYPED)
def test_a_former_name_composes_to_what_todays_does(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    (renamed,) = rename_overrides([old])
    assert renamed == new and composed(None, renamed) == composed(None, new)
    assert capsys.readouterr().err == f"finetune: {old} is called {new} now.\n"


def test_all_names_are_told_in_one_line_and_the_run_is_named_after_todays(tmp_path: Path) -> None:
    shown = finetune(*(old for old, _ in TYPED if "means" not in old), "--cfg", "all", folder=tmp_path)
    assert shown.returncode == 0 and shown.stderr.count("\n") == 1
    assert all(f"{old} is called {new} now" in shown.stderr for old, new in TYPED if "means" not in old)
    name = composed(None, "model=efficientnet_lite0")
    assert name.model.name == "tf_efficientnet_lite0" and "model: efficientnet_lite0" in shown.stdout
    audited = finetune("audit", "audit.bits=99", folder=tmp_path)
    assert audited.returncode == 2 and "audit.bits=99 is called audit.hash_distance=99 now" in audited.stderr
    assert "audit.hash_distance=99 must be a number of bits, at least 0 and at most 64" in audited.stderr


@pytest.mark.parametrize(("old", "new"), [pair for pair in TYPED if pair[0].split("=")[0] in RENAMED_KEYS])
def test_both_names_at_once_are_refused(old: str, new: str) -> None:
    with pytest.raises(ConfigError, match="two names of one setting"):
        rename_overrides([new, old])


@pytest.mark.parametrize(
    ("old", "said"), [("noise=smothing", "Did you mean 'smoothing'"), ("interpolate=[2]", "wise_ft=.*between 0")]
)
def test_a_wrong_value_is_refused_under_todays_name(old: str, said: str, tmp_path: Path) -> None:
    import re

    done = finetune(old, "data.workers=0", folder=tmp_path)
    assert done.returncode == 2 and re.search(said, done.stderr)


def test_words_that_only_look_like_former_names_stay() -> None:
    words = ["--config-name", "train", "model.name=mobile", "name=noise", "head.solver=null", "data.root=means/mobile"]
    assert rename_overrides(words) == words


def test_grids_take_former_names() -> None:
    plans = plan_jobs("train", None, rename_overrides(["noise=none,mixup", "model=mobile,resnet50", "bootstrap=0"]))
    assert [plan.what for plan in plans][:2] == [
        "label_noise=none model=efficientnet_lite0", "label_noise=none model=resnet50",
    ]  # fmt: skip


def test_searches_take_former_names_typed_stored_and_in_spaces(tmp_path: Path) -> None:
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "mine.yaml").write_text(
        "params:\n  noise: choice(none, mixup)\n  model: choice(mobile, resnet50)\n"
        "  data.imbalance: choice(none, focal)\n"
        "when:\n  data.imbalance:\n    noise: [none]\n    model: mobile\n"
    )
    arguments = ["--config-name", "sweep", "--config-dir", str(tmp_path), "space=mine", "ood.accept=0.9"]
    plan = make_sweep_plan(read_request(rename_overrides(arguments)))
    assert [str(each) for each in plan.space.dimensions][:2] == [
        "label_noise=choice(none, mixup)", "model=choice(efficientnet_lite0, resnet50)",
    ]  # fmt: skip
    (varying,) = [each for each in plan.space.dimensions if each.key == "imbalance"]
    assert sorted(each.key for each in varying.when) == ["label_noise", "model"]
    stored = {"own": [], "fixed": ["interpolate=[0.5]"], "swept": ["head.solver=means,lbfgs"], "config_dir": None}
    request = request_of({"request": stored}, tmp_path / "sweep.json")
    assert request.fixed == ("wise_ft=[0.5]",) and request.swept == ("head.solver=nearest_mean,lbfgs",)
    with pytest.raises(ConfigError, match="two names"):
        rename_space({"noise": "none", "label_noise": "none"})


def test_files_of_the_users_own_take_former_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for group in ("experiment", "ood", "data", "model"):
        (tmp_path / group).mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: mine\n  - override /ood: mine\n  - override /data: mine\n"
        "  - override /optimizer: mae\nnoise: mixup\nfeatures: {test_views: 3}\nhead: {solver: samme}\n"
    )
    (tmp_path / "ood" / "mine.yaml").write_text("defaults: [_base]\nkind: energy\naccept: 0.8\n")
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [digits]\nimbalance: focal\n")
    (tmp_path / "model" / "mine.yaml").write_text("defaults: [mobile]\ndrop_rate: 0.5\n")
    found = composed(tmp_path, "experiment=mine")
    move_strays(found)
    assert (found.label_noise, found.tta_views, found.ood.tpr, found.imbalance) == ("mixup", 3, 0.8, "focal")
    assert (found.head.solver, found.model.name, found.model.drop_rate) == ("adaboost", "tf_efficientnet_lite0", 0.5)
    assert "imbalance" not in found.data and found.optimizer.options.betas == [0.9, 0.95]
    said = capsys.readouterr().err
    assert "experiment/mine: noise is called label_noise now" in said and "data.imbalance=focal is called" in said
    move_strays(composed(tmp_path, "experiment=mine"))
    assert capsys.readouterr().err == ""  # once


def test_stored_configurations_get_todays_names() -> None:
    stored: dict[str, Any] = {
        "noise": "mixup", "interpolate": [0.5], "ood": {"kind": "knn", "accept": 0.9}, "imbalance": "focal",
        "features": {"views": 2, "test_views": 3}, "data": {"imbalance": "focal"}, "head": {"solver": "means"},
    }  # fmt: skip
    rename_config(stored)
    assert stored == {
        "label_noise": "mixup", "wise_ft": [0.5], "ood": {"kind": "knn", "tpr": 0.9}, "imbalance": "focal",
        "features": {"views": 2}, "tta_views": 3, "data": {}, "head": {"solver": "nearest_mean"},
    }  # fmt: skip
    assert rename_config(stored) == [] and OmegaConf.create(stored)
