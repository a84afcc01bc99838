"""recipe=auto is resolved once, visibly, and its values are those that the run is made of."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from command import finetune
from hydra import compose, initialize_config_dir
from photos import photo
from tiny import tiny_table

from finetune.config.compose import conf_dir, register
from finetune.config.resolve import resolve
from finetune.config.settings.roots import TrainSettings
from finetune.data.sequences.frame_store import SequenceStore
from finetune.errors import ConfigError
from finetune.search.autoconfig.recipe import Typed, resolve_recipe
from finetune.search.autoconfig.rules import RecipeChoice
from finetune.search.command_line import read_request

register()
SMALL = (
    "data.image_size=32", "model.name=test_efficientnet", "model.weights=none", "trainer=cpu", "strategy.head_epochs=1",
)  # fmt: skip


def composed(*overrides: str) -> TrainSettings:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolve(compose("train", list(overrides)), TrainSettings)


def resolved(*overrides: str, images: int = 200) -> tuple[TrainSettings, list[RecipeChoice]]:
    """Return what becomes of a command line with so many training images."""

    def recompose(more: Sequence[str]) -> TrainSettings:
        return composed(*overrides, *more)

    typed = tuple(override.partition("=")[0] for override in overrides)
    groups = {key: value for key, _, value in (override.partition("=") for override in overrides)}
    table = tiny_table(train=images, val=20, test=20)
    return resolve_recipe(composed(*overrides), Typed(typed, groups), table, None, recompose)


def test_nothing_is_chosen_unless_it_is_asked_for() -> None:
    assert resolved() == (composed(), [])


def test_choices_become_the_configuration() -> None:
    config, choices = resolved("recipe=auto")
    assert config == composed("recipe=auto", *(choice.override for choice in choices))
    assert config.strategy.name == "lp_ft" and config.features.views == 4
    assert all(choice.reason in choice.summary_line() for choice in choices)


def test_few_images_compose_the_frozen_strategy() -> None:
    config, _ = resolved("recipe=auto", images=60)
    assert [phase.name for phase in config.strategy.phases] == ["probe"]


def test_what_was_typed_stays() -> None:
    typed = ("recipe=auto", "strategy=full", "strategy.epochs=3", "features.views=2")
    assert resolved(*typed) == (composed(*typed), [])


def test_an_experiment_is_left_as_it_is() -> None:
    typed = ("recipe=auto", "experiment=digits_strong")
    assert resolved(*typed) == (composed(*typed), [])


def test_a_time_is_fitted_by_epochs_or_by_the_probe_alone() -> None:
    long, _ = resolved(*SMALL[:4], "recipe=auto", "recipe.budget=2h")
    short, choices = resolved(*SMALL[:4], "recipe=auto", "recipe.budget=0.001s")
    assert long.strategy.name == "lp_ft" and long.strategy.epochs == 12
    assert short.strategy.name == "frozen" and short.features.views == 1
    assert "fewer than 2 epochs of fine-tuning" in choices[0].reason


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("recipe.budget=10m",), "needs a recipe"),
        (("recipe=auto", "recipe.name=best"), "is not one of none, auto"),
        (("recipe=auto", "recipe.budget=soon"), "is not a time"),
        (("recipe=auto", "recipe.budget=10m", "experiment=digits_strong"), "says all"),
        (("recipe=auto", "recipe.budget=10m", "trainer.devices=2"), "one device"),
    ],
)
def test_what_cannot_be_done_is_said(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(*overrides)


def test_sequences_are_refused() -> None:
    table = tiny_table(train=60, val=20, test=20)
    clips = replace(table, store=SequenceStore(table.store, {}, 5))
    config = composed("recipe=auto")
    with pytest.raises(ConfigError, match="these are sequences"):
        resolve_recipe(config, Typed((), {}), clips, None, lambda more: config)


def test_a_sweep_refuses_a_recipe() -> None:
    request = read_request(["--config-name", "sweep", "space=lr", "strategy=frozen", "recipe=auto"])
    with pytest.raises(ConfigError, match="chooses for one run"):
        request.trial([])


def test_a_run_says_and_stores_what_was_chosen(tmp_path: Path) -> None:
    for number in range(48):
        image = photo((48, 40), number)
        (tmp_path / "photos" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png")
    found = finetune(
        *SMALL, "data=folder", "data.root=photos", "recipe=auto", "recipe.budget=1h", "optimizer.lr=1e-3",
        "trainer.limit_batches=1", "logger=none", "hydra.run.dir=run", "bootstrap=0", "report=false",
        "explain.images=0", "cache.enabled=false", folder=tmp_path,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert config["features"]["views"] == 4 and config["optimizer"]["lr"] == 1e-3
    sets = {each["set"] for each in record["recipe"]}
    assert sets >= {
        "features.views=4",
        "head.l2=cv",
        "strategy.epochs=6",
    }  # of strategy.head_epochs=1 the recipe leaves the rest
    assert config["strategy"]["head_epochs"] == 1
    assert "recipe: features.views=4 (" in found.stderr
    assert record["kept"]["what"] in ("probe", "fine-tuned", "interpolation")
    assert "Kept " in found.stderr
