"""Words become settings, are said, and contradictions are refused."""

import logging
from dataclasses import replace
from typing import Any, get_args

import pytest
from configured import train_settings
from hydra import compose, initialize_config_dir

from finetune.config.aliases import rename_overrides
from finetune.config.compose import conf_dir, register
from finetune.config.policies import resolve_policies
from finetune.config.resolve import resolve, resumed_settings
from finetune.config.settings.data_groups import DataSettings, Imbalance
from finetune.config.settings.root_table import ROOTS
from finetune.config.settings.roots import TrainSettings
from finetune.config.settings.training_groups import LabelNoise, RegularizeSettings
from finetune.errors import ConfigError
from finetune.models.heads.settings import SolverSettings
from finetune.training.policy_checks import check_solver_policies

register()


def resolved(*words: str, root: str = "train") -> dict[str, Any]:
    """Return the configuration of a command line with its policies resolved."""
    words = tuple(rename_overrides(words))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return dict(resolve(compose(root, list(words)), ROOTS[root], words, tell=True).document)


@pytest.mark.parametrize("name", ["imbalance", "data.imbalance"])
@pytest.mark.parametrize("word", ["oversample", "focal"])
def test_imbalance_chooses_the_loss_under_both_of_its_names(name: str, word: str) -> None:
    config = resolved(f"{name}={word}")
    assert config["imbalance"] == word and "imbalance" not in config["data"]
    assert config["loss"]["_target_"].endswith(".Focal" if word == "focal" else ".CrossEntropy")


@pytest.mark.parametrize("root", ["train", "benchmark"])
def test_every_word_resolves_and_resolves_to_itself(root: str) -> None:
    base = resolved(root=root)
    for change in [{"imbalance": word} for word in get_args(Imbalance)] + [
        {"label_noise": word} for word in get_args(LabelNoise)
    ]:
        config = resolve_policies({**base, **change})[0]
        assert resolve_policies(config)[0] == config


def test_words_change_what_they_say(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert resolved("label_noise=generalised_ce")["loss"] == {
            "_target_": "finetune.training.losses.GeneralisedCrossEntropy", "q": 0.7,
        }  # fmt: skip
        assert resolved("label_noise=smoothing", "loss=bce")["loss"]["label_smoothing"] == 0.1
        assert resolved("label_noise=smoothing", "loss.label_smoothing=0.2")["loss"]["label_smoothing"] == 0.2
        assert resolved("label_noise=mixup")["augment"]["mixup"] == 0.2
        assert resolved("regularize.l2_sp=0.1")["optimizer"]["weight_decay"] == 0
    assert caplog.messages == [
        "label_noise=generalised_ce: the loss is GeneralisedCrossEntropy with loss.q=0.7",
        "label_noise=smoothing: loss.label_smoothing=0.1",
        "label_noise=smoothing: loss.label_smoothing=0.2",
        "label_noise=mixup: augment.mixup=0.2",
        "regularize.l2_sp=0.1: optimizer.weight_decay=0, whose place it takes",
    ]


def test_what_was_typed_stays() -> None:
    assert resolved("imbalance=focal", "loss=focal", "loss.gamma=1")["loss"]["gamma"] == 1
    assert resolved("imbalance=focal", "+loss.gamma=3")["loss"]["gamma"] == 3
    assert resolved("label_noise=mixup", "augment.mixup=1")["augment"]["mixup"] == 1
    assert resolved("regularize.l2_sp=0.1", "optimizer.weight_decay=0.01")["optimizer"]["weight_decay"] == 0.01
    assert resolved("label_noise=mixup", "augment=none")["augment"]["mixup"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["imbalance=focl"], "imbalance=focl is not one of none, .*Did you mean 'focal'"),
        (["label_noise=smothing"], "label_noise=smothing is not one of .*Did you mean 'smoothing'"),
        (["imbalance=focal", "data.imbalance=oversample"], "are two names of one setting"),
        (["imbalance=focal", "loss=cross_entropy"], "imbalance=focal uses the loss Focal, and loss=CrossEntropy asks"),
        (["imbalance=focal", "loss=bce"], "loss=BinaryCrossEntropy asks for another one"),
        (["imbalance=focal", "loss.label_smoothing=0.1"], "loss.label_smoothing asks for another one"),
        (["imbalance=focal", "label_noise=generalised_ce"], "label_noise=generalised_ce uses .* loss=Focal asks"),
        (["label_noise=smoothing", "loss=focal"], "needs a loss that smooths labels, and Focal does not"),
        (["label_noise=smoothing", "loss.label_smoothing=0"], "loss.label_smoothing=0 does not"),
        (["label_noise=mixup", "augment.mixup=0"], "augment.mixup=0 does not"),
        (["regularize.l1=-1"], "regularize.l1=-1.0 must be a strength, at least 0"),
        (["regularize.l2_sp=1", "trainer=fsdp"], "regularize.l2_sp needs whole weights"),
        (["regularize.l1=1", "callbacks=ema"], "regularize.l1 makes weights zero"),
    ],
)
def test_contradictions_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(*words)


def test_runs_older_than_the_words_go_on() -> None:
    config = resolved("imbalance=class_weights")
    config["data"]["imbalance"] = config["imbalance"]
    for name in ("imbalance", "balance", "label_noise", "regularize"):
        config.pop(name)
    assert resumed_settings(config, TrainSettings, []).imbalance == "class_weights"


@pytest.mark.parametrize(
    ("solver", "change", "instead"),
    [
        ("lbfgs", {"imbalance": "augment_minority"}, "imbalance=oversample"),
        ("nearest_mean", {"imbalance": "logit_adjust"}, "imbalance=class_weights"),
        ("lbfgs", {"label_noise": "mixup"}, "label_noise=drop_suspects"),
        ("lbfgs", {"regularize": {"l2_sp": 1.0}}, "head.l2"),
        ("lbfgs", {"regularize": {"l1": 1.0}}, "head=sparse"),
    ],
)
def test_solvers_refuse_what_concerns_single_steps(solver: Any, change: dict[str, Any], instead: str) -> None:
    base = train_settings("imbalance=oversample")
    check_solver_policies(SolverSettings(solver, 0.1), base)
    parts = {"data": DataSettings, "regularize": RegularizeSettings}
    changes = {
        name: replace(getattr(base, name), **value) if name in parts else value for name, value in change.items()
    }
    with pytest.raises(ConfigError, match=f"head.solver={solver}.*Use {instead}"):
        check_solver_policies(SolverSettings(solver, 0.1), replace(base, **changes))
