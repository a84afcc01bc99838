"""What a recipe chooses follows from what is known, and never touches what was typed."""

import dataclasses

import pytest

from finetune.errors import ConfigError
from finetune.search.autoconfig.budget import (
    Pace,
    epochs_that_fit,
    fit_views,
    pass_seconds,
    scoring_seconds,
    seconds_of,
)
from finetune.search.autoconfig.dataset_facts import DatasetFacts, gather_facts
from finetune.search.autoconfig.recipe import Typed
from finetune.search.autoconfig.rules import apply_rules

PHOTOS = DatasetFacts(train=207, val=37, test=153, per_class=103.5, task="multiclass", on_cpu=True, batch_size=32)


def chosen(facts: DatasetFacts, *keys: str, strategy: str = "lp_ft", augmented: bool = True) -> dict[str, str]:
    typed = Typed(keys, {})
    return {each.key: each.value for each in apply_rules(facts, typed.free, strategy=strategy, augmented=augmented)}


def test_few_images_per_class_are_probed_alone() -> None:
    assert chosen(dataclasses.replace(PHOTOS, per_class=9))["strategy"] == "frozen"
    assert chosen(dataclasses.replace(PHOTOS, per_class=10))["strategy"] == "lp_ft"


def test_epochs_shrink_as_images_grow() -> None:
    counts = [207, 1257, 2_000, 100_000]
    epochs = [int(chosen(dataclasses.replace(PHOTOS, train=count))["strategy.epochs"]) for count in counts]
    assert epochs == [12, 10, 6, 6]


def test_views_keep_to_the_passes_that_the_device_can_pay() -> None:
    many = dataclasses.replace(PHOTOS, train=8_000)
    assert chosen(PHOTOS)["features.views"] == "4"
    assert chosen(many)["features.views"] == "2"
    assert chosen(dataclasses.replace(many, on_cpu=False))["features.views"] == "4"
    assert "features.views" not in chosen(PHOTOS, augmented=False)


@pytest.mark.parametrize("typed", ["head", "head.dropout", "loss", "loss.label_smoothing"])
def test_few_images_have_their_head_solved_unless_head_or_loss_was_typed(typed: str) -> None:
    assert {"head.l2", "loss.label_smoothing"} <= set(chosen(PHOTOS))
    assert not {"head.l2", "loss.label_smoothing"} & set(chosen(PHOTOS, typed))
    for facts in (dataclasses.replace(PHOTOS, train=1001), dataclasses.replace(PHOTOS, task="multilabel")):
        assert "head.l2" not in chosen(facts)
    assert "head.l2" not in chosen(PHOTOS, "strategy", strategy="full")  # which has no probe


@pytest.mark.parametrize("typed", ["strategy", "strategy.epochs", "strategy.layer_decay"])
def test_a_typed_strategy_is_left_alone(typed: str) -> None:
    found = chosen(dataclasses.replace(PHOTOS, per_class=2), typed, strategy="lp_ft")
    assert not [key for key in found if key.startswith("strategy")]
    assert found["features.views"] == "4"


def test_an_experiment_says_all() -> None:
    typed = Typed(("experiment",), {"experiment": "digits_strong", "debug": None})
    assert apply_rules(PHOTOS, typed.free, strategy="lp_ft", augmented=True) == []
    assert typed.whole == "experiment=digits_strong"


def test_facts_count_training_images_of_the_median_class() -> None:
    from tiny import tiny_table

    table = tiny_table(train=60, val=20, test=10)
    facts = gather_facts(table, on_cpu=True, batch_size=16)
    labels = table.frame["label"].iloc[table.rows("train")].value_counts()
    assert (facts.train, facts.val, facts.test, facts.steps) == (60, 20, 10, 4)
    assert facts.per_class == labels.reindex(table.labels, fill_value=0).median()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("1h1m1s", 3661)]
)
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["10", "soon", "", "0s", "5 m", "1.2.3s", "-3m", 60])
def test_what_is_no_time_is_refused(text: object) -> None:
    with pytest.raises(ConfigError, match=r"90s, 10m or 1h30m"):
        seconds_of(text)


def test_epochs_fill_the_time_that_is_left_and_no_more() -> None:
    pace = Pace(forward=50.0, epochs=10.0)
    assert scoring_seconds(PHOTOS, pace, 5, 1) == pytest.approx((6 * 37 + 153) / 50)
    assert [epochs_that_fit(pace, left, 12) for left in (-5.0, 9.9, 10.0, 35.0, 1e4)] == [0, 0, 1, 3, 12]
    assert epochs_that_fit(Pace(forward=50.0, epochs=0.0), 1.0, 30) == 30  # a probe costs no pass for an epoch more


@pytest.mark.parametrize(("seconds", "most", "views"), [(1.0, 4, 1), (10.0, 4, 2), (20.0, 4, 4), (20.0, 2, 2)])
def test_views_are_those_that_pass_in_time(seconds: float, most: int, views: int) -> None:
    pace = Pace(forward=50.0, epochs=10.0)
    assert fit_views(PHOTOS, pace, seconds, most) == views
    assert views == 1 or pass_seconds(PHOTOS, pace, views) <= seconds
