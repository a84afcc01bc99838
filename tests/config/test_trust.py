"""What is read back from a folder names only what conf/ names, and nothing that it names otherwise is called."""

import dataclasses
import inspect
import os
import pydoc
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.cli import main
from finetune.config.compose import conf_dir
from finetune.config.settings.checked import read_target
from finetune.config.settings.targets import TARGET_SETTINGS
from finetune.config.trust import (
    check_stored,
    check_stored_overrides,
    named_targets,
    own_targets,
    trust_folders,
    trust_words,
)
from finetune.errors import ConfigError, RunError
from finetune.runs.run import Run
from finetune.runs.stored_files import read_json, read_stored_json, read_stored_yaml

HOSTILE = [
    "pandas.read_pickle", "torch.load", "numpy.load", "joblib.load", "pathlib.Path.write_text", "shutil.copyfile",
    "torch.hub.load", "os.system", "subprocess.run", "builtins.eval", "finetune.data.sources.folder.__globals__",
    "finetune.commands.train.train", "pytorch_lightning.Trainer", "importlib.import_module", "",
]  # fmt: skip
PLACES = ["data.source", "loss", "callbacks.own", "logger.own", "optimizer", "augment", "trainer", "model.name", "deep"]


def stored(place: str, target: str, **arguments: Any) -> dict[str, Any]:
    """Return a configuration that names a target somewhere."""
    content: dict[str, Any] = {"_target_": target, **arguments}
    for key in reversed(place.split(".")):
        content = {key: content}
    return content


def run_of(folder: Path, config: str) -> Run:
    """Return a run folder with that configuration."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(config)
    (folder / "run.json").write_text("{}")
    return Run(folder)


def test_the_list_is_what_conf_names_and_takes_what_it_is_called_with() -> None:
    named = {
        path
        for file in conf_dir().rglob("*.yaml")
        for path, _ in named_targets(yaml.safe_load(file.read_text()))
        if path
    }
    assert named == set(TARGET_SETTINGS)
    for path, settings in TARGET_SETTINGS.items():
        made = pydoc.locate(path)
        assert callable(made), path
        known = set(inspect.signature(made).parameters) - {"kwargs", "class_weights", "save_dir"}
        assert {entry.name for entry in dataclasses.fields(settings)} == known, path


@pytest.mark.parametrize("target", HOSTILE)
@pytest.mark.parametrize("place", PLACES)
def test_a_stored_configuration_names_nothing_else(tmp_path: Path, place: str, target: str) -> None:
    run = run_of(tmp_path, yaml.safe_dump({"verb": "train", **stored(place, target, path="x")}))
    with pytest.raises(ConfigError, match=r"config\.yaml would run .*type trust=true"):
        _ = run.config


@pytest.mark.parametrize("key", ["_args_", "_partial_", "_recursive_", "_convert_", "_mode_"])
def test_words_of_hydra_beside_a_target_are_refused(tmp_path: Path, key: str) -> None:
    known = stored("loss", "finetune.training.losses.Focal", **{key: ["x"]})
    with pytest.raises(ConfigError, match="would run"):
        _ = run_of(tmp_path, yaml.safe_dump(known)).config


def test_one_target_within_another_is_found() -> None:
    inner = stored("data.source", "finetune.data.sources.folder", root={"_target_": "os.system", "command": "true"})
    with pytest.raises(ConfigError, match=r"would run os\.system"):
        check_stored(inner, "config.yaml")


def test_arguments_are_those_of_the_target() -> None:
    with pytest.raises(ConfigError, match=r"loss\.weight is no setting of loss \(it has: gamma\)"):
        read_target("loss", {"_target_": "finetune.training.losses.Focal", "weight": 1})
    with pytest.raises(ConfigError, match=r"loss\.gamma=high must be at least 0"):
        read_target("loss", {"_target_": "finetune.training.losses.Focal", "gamma": "high"})
    with pytest.raises(ConfigError, match=r"data\.val_means=all is not one of auto, val, test"):
        read_target("data.source", {"_target_": "finetune.data.sources.folder", "root": "x", "val_means": "all"})
    found = read_target("data.source", {"_target_": "finetune.data.sources.folder", "root": 2024})
    assert found.arguments == {"root": "2024"}


def test_what_was_composed_here_or_is_trusted_is_not_refused() -> None:
    own = stored("loss", "my_losses.Poly")
    with pytest.raises(ConfigError, match=r"my_losses\.Poly"):
        check_stored(own, "config.yaml")
    trust_folders(True)
    check_stored(own, "config.yaml")
    assert trust_words() == ["trust=true"]  # what trials and folds that go on are told
    trust_folders(False)
    assert trust_words() == []
    own_targets(stored("loss", "my_losses.PolyOfThisProcess"))
    check_stored(stored("loss", "my_losses.PolyOfThisProcess"), "config.yaml")


@pytest.mark.parametrize(
    "line",
    ["loss._target_=pandas.read_pickle", "+loss={_target_: torch.load, f: x}", "loss={'_target_':os.system}",
     "loss._target_=choice(finetune.training.losses.Focal,os.system)", "+x={\"_target_\" : joblib.load}"],
)  # fmt: skip
def test_stored_overrides_name_nothing_else(line: str) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.json would run"):
        check_stored_overrides([line], None, "sweep.json")
    check_stored_overrides(["loss._target_=finetune.training.losses.Focal", "optimizer.lr=1"], None, "sweep.json")


def test_a_folder_of_configurations_in_a_stored_request_names_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "evil.yaml").write_text("_target_: os.system\ncommand: touch x\n")
    with pytest.raises(ConfigError, match=r"evil\.yaml would run os\.system"):
        check_stored_overrides(["loss=evil"], str(tmp_path), "sweep.json")


DEEP = "[" * 10_000 + "]" * 10_000
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    ["null", "", "- 1", "text", f"a: {DEEP}", "a: &a [*a]", BOMB, "a: b: c", "\x00\x01", "1: 2",
     "a: !!python/name:os.system ''", "x" * (2**20 + 2)],
    ids=["null", "empty", "list", "text", "deep", "recursive", "bomb", "colon", "bytes", "number", "tag", "large"],
)  # fmt: skip
def test_a_configuration_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    run = run_of(tmp_path, text)
    with pytest.raises(RunError, match=r"config\.yaml cannot be read as a configuration \([^\n]+\)"):
        _ = run.config


@pytest.mark.parametrize("text", [DEEP, '{"a": ' * 500 + "1" + "}" * 500, "[]", "null", "{", "\x00", ""])
def test_json_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json cannot be read \([^\n]+\)"):
        read_stored_json(tmp_path / "run.json")
    assert read_json(tmp_path / "run.json") is None


def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(RunError, match="it is no file"):
        read_stored_yaml(tmp_path / "config.yaml")
    with pytest.raises(RunError, match="it is no file"):
        read_stored_json(tmp_path)


@pytest.mark.parametrize("command", ["sweep", "crossval"])
def test_a_search_that_goes_on_takes_trust_and_is_no_other_search_for_it(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def look(name: str, arguments: list[str]) -> int:
        seen.extend([name, trust_words(), "trust=true" in arguments])
        return 0

    monkeypatch.setattr("finetune.cli.search", look)
    monkeypatch.setattr("sys.argv", ["finetune", command, "resume=last", "trust=true"])
    try:
        with pytest.raises(SystemExit):
            main()
        assert seen == [command, ["trust=true"], False]
    finally:
        trust_folders(False)
