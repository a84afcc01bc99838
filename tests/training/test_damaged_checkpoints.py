"""A run goes on from the checkpoint before a damaged or foreign one, or says in a line that it cannot."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from configured import settings_for
from resumed import Kill, Killed, tiny_network, train
from tiny import strategy_config

from finetune.config.settings.phases import Strategy, build_strategy
from finetune.config.settings.training_groups import OptimizerSettings
from finetune.errors import RunError
from finetune.runs.history import RunHistory
from finetune.runs.run import Run
from finetune.training.callbacks.checkpoints import Checkpoints
from finetune.training.resume import ResumePoint, find_resume_point

STRATEGY: Strategy = build_strategy(strategy_config("lp_ft"))
TENSOR = "network.backbone.conv_stem.weight"


def changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Return what replaces a checkpoint by its changed content."""

    def replace(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        torch.save(change(content) or content, path)

    return replace


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "garbage": lambda path: path.write_bytes(b"\x80\x04garbage" * 999),
    "text": lambda path: path.write_text("see the other disk"),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-4000]),
    "list": lambda path: torch.save([1, 2], path),
    "no keys": lambda path: torch.save({}, path),
    "weights alone": changed(lambda content: {"state_dict": content["state_dict"]}),
    "no place": changed(lambda content: content["finetune"].pop("steps") and None),
    "a tensor less": changed(lambda content: content["state_dict"].pop(TENSOR) is None or None),
    "a tensor more": changed(lambda content: content["state_dict"].update({"network.new": torch.ones(1)})),
    "another shape": changed(lambda content: content["state_dict"].update({TENSOR: torch.ones(1)})),
    "no optimizer": changed(lambda content: content.pop("optimizer_states") and None),
    "empty optimizer": changed(lambda content: content["optimizer_states"][0]["state"].clear()),
    "other optimizer": changed(lambda content: content["optimizer_states"][0]["param_groups"].pop() and None),
    "no loops": changed(lambda content: content.pop("loops") and None),
    "no best": changed(lambda content: content["callbacks"].pop("Checkpoints") and None),
    "phase 99": changed(lambda content: content["finetune"].update(phase=99)),
    "phase -1": changed(lambda content: content["finetune"].update(phase=-1)),
    "another phase": changed(lambda content: content["finetune"].update(phase=0)),
    "epoch 7": changed(lambda content: content["finetune"].update(epochs=7)),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was killed in the last epoch of its second phase."""
    run = Run(tmp_path_factory.mktemp("killed"))
    with pytest.raises(Killed):
        train(run, STRATEGY, Kill(1, 1))
    return run


def resumed(run: Run) -> ResumePoint:
    """Return where a run goes on."""
    checkpoints = Checkpoints(run, "val/accuracy", "max")
    return find_resume_point(checkpoints, tiny_network(STRATEGY), STRATEGY, settings_for(OptimizerSettings))


def test_whole_checkpoint_is_gone_on_from(killed: Run) -> None:
    place = resumed(killed)
    assert (place.phase, place.epochs, place.done, place.checkpoint) == (1, 2, 1, killed.last_checkpoint)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_falls_back_on_the_one_before(
    killed: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    run = Run(Path(shutil.copytree(killed.path, tmp_path / "run")))
    DAMAGES[damage](run.last_checkpoint)
    with caplog.at_level(logging.WARNING, "finetune"):
        place = resumed(run)
    assert (place.phase, place.epochs, place.done) == (1, 2, 0)
    (line,) = [record.getMessage() for record in caplog.records]
    assert str(run.last_checkpoint) in line and "previous.ckpt" in line and "\n" not in line
    shutil.copy(run.last_checkpoint, run.previous_checkpoint)
    before = run.previous_checkpoint.read_bytes()
    with pytest.raises(RunError, match="last.ckpt cannot be used: .* remove both") as refused:
        resumed(run)
    assert "\n" not in str(refused.value)
    assert run.previous_checkpoint.read_bytes() == before


@pytest.mark.parametrize("damage", ["garbage", "no optimizer"])
def test_run_that_falls_back_twice_equals_an_uninterrupted_one(killed: Run, tmp_path: Path, damage: str) -> None:
    whole, run = Run(tmp_path / "whole"), Run(Path(shutil.copytree(killed.path, tmp_path / "run")))
    expected = train(whole, STRATEGY)
    DAMAGES[damage](run.last_checkpoint)
    with pytest.raises(Killed):
        train(run, STRATEGY, Kill(1, 1))
    DAMAGES[damage](run.last_checkpoint)
    found = train(run, STRATEGY)
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert RunHistory(run.history_file).read() == RunHistory(whole.history_file).read()
