"""The direction of what is monitored follows from the metric; against it nothing can be typed."""

import pytest
from hydra import compose, initialize_config_dir

from finetune.config.compose import conf_dir, register
from finetune.config.directions import DIRECTIONS, direction_of
from finetune.config.resolve import resolve
from finetune.config.settings.root_table import ROOTS
from finetune.config.settings.roots import BenchmarkRootSettings, PretrainRootSettings, TrainSettings
from finetune.errors import ConfigError
from finetune.search.study.samplers import read_objectives
from finetune.training.callbacks.epoch_metrics import build_metrics

register()


def resolved(*words: str, root: str = "train") -> TrainSettings:
    """Return the settings of a command line."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        settings = resolve(compose(root, list(words)), ROOTS[root], words)
    assert isinstance(settings, TrainSettings | PretrainRootSettings | BenchmarkRootSettings)
    return settings  # type: ignore[return-value]


@pytest.mark.parametrize("name", sorted(set(DIRECTIONS) - {"parameters", "latency"}))
@pytest.mark.parametrize("root", ["train", "benchmark"])
def test_every_metric_has_its_direction_without_a_word(name: str, root: str) -> None:
    settings = resolved(f"monitor=val/{name}", root=root)
    assert settings.mode == ("min" if name in ("loss", "calibration_error") else "max")
    assert settings.document["mode"] == settings.mode  # as it is stored


def test_a_pretraining_keeps_the_lowest_loss() -> None:
    assert resolved(root="pretrain").mode == "min"


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_every_metric_that_is_measured_while_training_has_a_direction(task: str) -> None:
    measured = build_metrics(task, 7)  # type: ignore[arg-type]
    assert {str(name).removeprefix("val/") for name in measured} <= set(DIRECTIONS)


@pytest.mark.parametrize(
    "words",
    [
        ["monitor=val/loss", "mode=max"],
        ["mode=min"],
        ["callbacks=early_stopping", "callbacks.early_stopping.mode=min"],
        [
            "callbacks=early_stopping_ema",
            "callbacks.early_stopping.monitor=val/loss",
            "callbacks.early_stopping.mode=max",
        ],
        ["monitor=val/calibration_error", "mode=max"],
    ],
)
def test_a_direction_against_the_metric_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"contradicts (callbacks\.early_stopping\.)?monitor=val/\w+, which is best"):
        resolved(*words)


def test_early_stopping_watches_in_the_direction_of_its_own_metric() -> None:
    stopping = resolved("callbacks=early_stopping", "callbacks.early_stopping.monitor=val/loss").callbacks
    assert stopping["early_stopping"] is not None
    assert stopping["early_stopping"].arguments["mode"] == "min"


def test_a_callback_of_lightning_that_states_no_direction_gets_that_of_its_metric() -> None:
    settings = resolved("+callbacks.own._target_=pytorch_lightning.callbacks.EarlyStopping",
                        "+callbacks.own.monitor=val/accuracy")  # fmt: skip
    own = settings.callbacks["own"]
    assert own is not None
    assert own.arguments["mode"] == "max"  # Lightning's own default is min


def test_a_metric_that_is_not_known_needs_a_direction() -> None:
    assert direction_of("val/own", "min", setting="mode") == "min"
    with pytest.raises(
        ConfigError, match=r"monitor=val/los is not known.* Did you mean 'val/loss'\?.* mode=max or mode="
    ):
        resolved("monitor=val/los")
    with pytest.raises(ConfigError, match=r"mode=maxx is not known. Use max or min. Did you mean 'max'"):
        resolved("mode=maxx")


@pytest.mark.parametrize(
    ("metric", "direction", "found"),
    [
        (None, None, ["min"]),
        ("val/f1_macro", None, ["max"]),
        (["val/loss", "latency", "val/accuracy"], None, ["min", "min", "max"]),
    ],
)
def test_the_objectives_of_a_sweep_follow_their_metrics(metric: object, direction: object, found: list[str]) -> None:
    objectives = read_objectives(metric, direction, monitor="val/loss", mode="min")
    assert [each.direction for each in objectives] == found


def test_an_objective_against_its_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep.direction=max contradicts sweep.metric=val/loss"):
        read_objectives("val/loss", "max", monitor="val/accuracy", mode="max")
