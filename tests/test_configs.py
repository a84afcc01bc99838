"""The configurations: every option composes, every target takes its keys, and misspelt keys are errors."""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finetune.config.compose import (
    check_read,
    command_names,
    conf_dir,
    instantiate_target,
    register,
    resumed_config,
    run_name,
    to_dict,
)
from finetune.config.resolve import resolve
from finetune.config.settings.checked import Target
from finetune.config.settings.roots import TrainSettings
from finetune.errors import ConfigError
from finetune.search.command_line import read_request
from finetune.search.sweep_plan import make_sweep_plan

register()
OPTIONS = sorted(
    (folder.name, file.stem)
    for folder in conf_dir().iterdir()
    if folder.is_dir() and folder.name != "hydra"
    for file in folder.glob("*.yaml")
    if not file.stem.startswith("_")
)
# the root of each group that train does not have
ROOTS = {"pool": "multirun_schema", "sweep": "sweep", "space": "sweep", "cv": "crossval"}
# what an option leaves for the user to type
NEEDED = {
    ("data", "folder"): ["data.root=x"],
    ("data", "csv"): ["data.path=x"],
    ("data", "hub"): ["data.name=x"],
    ("data", "sequences"): ["data.root=x"],
    ("data", "sequence_table"): ["data.path=x"],
    ("model", "timm"): ["model.name=resnet18"],
    ("optimizer", "timm"): ["optimizer.name=lion"],
}


def composed(*overrides: str, name: str = "train", folder: Path | None = None) -> DictConfig:
    """Return the configuration of a command line."""
    search = [f"hydra.searchpath=[file://{folder}]"] if folder else []
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(name, [*search, *overrides])


def targets(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every node that has a target."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_its_targets_take_its_keys(group: str, option: str) -> None:
    config = composed(f"{group}={option}", *NEEDED.get((group, option), []), name=ROOTS.get(group, "train"))
    check_read(config)
    for node in targets(to_dict(config)):
        module, _, name = node["_target_"].rpartition(".")
        signature = inspect.signature(getattr(importlib.import_module(module), name))
        signature.bind_partial(**{key: value for key, value in node.items() if key != "_target_"})


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "space"])
def test_every_space_composes_all_its_choices(option: str) -> None:
    plan = make_sweep_plan(read_request(["--config-name", "sweep", f"space={option}", "strategy=frozen"]))
    assert plan.space.dimensions


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "sweep"])
def test_every_way_of_searching_knows_its_options(option: str) -> None:
    varying = ["optimizer.lr=interval(0.0,1.0)", "optimizer.weight_decay=interval(0.0,1.0)"]
    words = ["optimizer.lr=1,2"] if option == "grid" else varying
    assert make_sweep_plan(read_request(["--config-name", "sweep", f"sweep={option}", *words])).settings.sampler


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "strategy"])
def test_every_strategy_is_one_that_can_be_trained(option: str) -> None:
    strategy = resolve(composed(f"strategy={option}"), TrainSettings).strategy
    assert strategy.name == option
    assert strategy.phases


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "strategy"])
def test_epochs_of_every_strategy_can_be_typed(option: str) -> None:
    strategy = resolve(composed(f"strategy={option}", "strategy.epochs=7"), TrainSettings).strategy
    assert strategy.phases[-1].epochs == 7


@pytest.mark.parametrize("name", command_names())
def test_every_command_composes(name: str) -> None:
    assert composed(*(["input=x"] if name == "predict" else []), name=name).verb == name


@pytest.mark.parametrize("text", ["optimizer: {lrr: 1}", "sead: 1", "model: {weight: none}", "trainer: {device: 2}"])
def test_typo_in_an_experiment_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises((HydraException, OmegaConfBaseException)):
        composed("experiment=mine", folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("strategy: {epoch: 3}", "strategy.epochs"),
        ("data: {batchsize: 3}", "data.batch_size"),
        ("data: {splits: {vall: 0.1}}", "data.splits.val"),
    ],
)
def test_key_that_nothing_reads_is_an_error(tmp_path: Path, text: str, right: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(ConfigError, match=right.rsplit(".", 1)[1]):
        check_read(composed("experiment=mine", folder=tmp_path))


def test_missing_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data\.root is not set"):
        to_dict(composed("data=folder"))


def test_resolved_config_has_no_references() -> None:
    assert "${" not in OmegaConf.to_yaml(OmegaConf.create(to_dict(composed())))


@pytest.mark.parametrize(
    "override", ["seed=-1", "bootstrap=-1", "trainer.accumulate=0", "trainer.threads=0", "data.batch_size=many"]
)
def test_numbers_that_make_no_sense_name_the_least(override: str) -> None:
    with pytest.raises(ConfigError, match=f"{override} must be a whole number of [01] or more"):
        resolve(composed(override), TrainSettings)


def test_resumed_run_takes_what_does_not_change_the_training() -> None:
    stored = to_dict(composed())
    assert resumed_config(stored, ["resume=last", "trainer.devices=2"]).trainer.devices == 2
    for override in ("optimizer.lr=1", "strategy=full", "seed=3", "data.batch_size=3"):
        with pytest.raises(ConfigError, match="cannot be changed"):
            resumed_config(stored, [override])
    with pytest.raises(ConfigError, match="logger.wandb.project"):
        resumed_config(stored, ["logger.wandb.projct=mine"])


def test_error_of_a_target_is_told_as_it_was_raised() -> None:
    with pytest.raises(Exception, match="does not exist"):
        instantiate_target(Target("finetune.data.sources.folder", {"root": "/nowhere/at/all"}))


def test_name_of_a_run_tells_what_changed_and_stays_short() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", ["optimizer.lr=1e-4", "strategy=full"], return_hydra_config=True)
        config.hydra.runtime.output_dir = "x"
        assert run_name(_root_=config) == "efficientnet_lite0-full-lr_1e-4"
        chosen = compose("train", ["recipe=auto", "recipe.budget=1m"], return_hydra_config=True)
        assert run_name(_root_=chosen) == "efficientnet_lite0-auto-budget_1m"
        typed = compose("train", ["recipe=auto", "strategy=full"], return_hydra_config=True)
        assert run_name(_root_=typed) == "efficientnet_lite0-full"
        long = compose(
            "train",
            [f"+tags=[{'x' * 90}]".lstrip("+"), f"runs={'y' * 90}", f"data.image_size={'9' * 70}"],
            return_hydra_config=True,
        )
        assert len(run_name(_root_=long)) <= 60


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_no_file_is_composed_twice_since_the_second_time_undoes_what_came_between(group: str, option: str) -> None:
    def parts(name: str) -> list[str]:
        if name.endswith("_schema"):
            return []
        content: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml")) or {}
        own = [each for each in content.get("defaults", []) if isinstance(each, str) and each != "_self_"]
        return [part for each in own for part in [*parts(each), each]]

    found = parts(option)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("group", "options", "found"),
    [
        ("callbacks", "early_stopping_ema", {"early_stopping", "ema"}),
        ("callbacks", "[ema,early_stopping]", {"early_stopping", "ema"}),
        ("callbacks", "[swa,snapshots]", {"swa", "snapshots"}),
        ("callbacks", "default", set()),
        ("logger", "[wandb,tensorboard]", {"wandb", "tensorboard"}),
        ("logger", "[tensorboard,wandb]", {"wandb", "tensorboard"}),
        ("logger", "csv", set()),
    ],
)
def test_options_that_are_joined_are_all_there(group: str, options: str, found: set[str]) -> None:
    settings = resolve(composed(f"{group}={options}"), TrainSettings)
    assert {name for name, each in settings.document[group].items() if each} == found
