"""A threshold is chosen on validation for the stated aim and judged on test, and what cannot be reached is said."""

import shlex

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from scored import predicted, run_data_of, scored
from sklearn import metrics

from finetune.errors import ConfigError
from finetune.evaluation.curves.operating_points import OperatingChoice
from finetune.report.html.blocks import Code, FactList, Figure, Table, Text
from finetune.report.sections.thresholds_section import threshold_section

NOTHING = OperatingChoice()


def binary(scores, truth, labels=("ants", "bees")):
    return predicted(truth, np.stack([1 - np.array(scores), np.array(scores)], axis=1), labels)


def parts(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def test_no_predictions_is_nothing_to_tell():
    assert threshold_section(run_data_of(), NOTHING) is None


def test_threshold_is_chosen_on_validation_and_judged_on_test():
    val, test = scored(200, 2, seed=1), scored(300, 2, seed=2)
    section = threshold_section(run_data_of(val=val, test=test), OperatingChoice(min_recall=0.9))
    (facts,) = parts(section, FactList)
    threshold = float(facts.facts[0].value)
    assert metrics.recall_score(val.targets, val.probabilities[:, 1] >= threshold) >= 0.9
    called = test.probabilities[:, 1] >= threshold
    expected = [metrics.precision_score(test.targets, called), metrics.recall_score(test.targets, called)]
    assert [fact.value for fact in facts.facts[1:3]] == [f"{value:.3f}" for value in expected]
    assert section.lead == (
        "Chosen on the validation split for the highest precision with a recall of at least 0.9, "
        "judged on the test split."
    )
    (table,) = parts(section, Table)
    assert [row[0] for row in table.rows if row[1] == "chosen"] == [threshold]
    assert len(parts(section, Figure)) == 1


@pytest.mark.parametrize(
    ("scores", "word", "tone"),
    [([0.9, 0.8, 0.2, 0.1], "is kept", "good"), ([0.9, 0.3, 0.2, 0.1], "is not kept", "warning")],
)
def test_a_minimum_that_does_not_hold_on_test_is_said(scores, word, tone):
    val, test = binary([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0]), binary(scores, [1, 1, 0, 0])
    section = threshold_section(run_data_of(val=val, test=test), OperatingChoice(min_recall=0.9))
    (text,) = parts(section, Text)
    assert f"The recall of at least 0.9 {word} on test" in text.text
    assert text.tone == tone


def test_cost_is_compared_with_flagging_nothing_and_everything():
    val = binary([0.9, 0.8, 0.2, 0.1], [1, 0, 1, 0])
    section = threshold_section(run_data_of(val=val, test=val), OperatingChoice(cost_fp=1, cost_fn=4))
    (text,) = parts(section, Text)
    assert text.text == (
        "On test an image costs 0.250 on average; flagging nothing would cost 2.000, flagging every image 0.500."
    )


def test_a_precision_that_no_threshold_reaches_is_said():
    val = binary([0.9, 0.5, 0.4], [0, 1, 0])
    section = threshold_section(run_data_of(val=val, test=val), OperatingChoice(min_precision=0.8))
    (text,) = parts(section, Text)
    assert text.text == (
        "No threshold reaches the highest recall with a precision of at least 0.8: bees. Ask for less."
    )
    assert not parts(section, FactList)
    assert parts(section, Table)


@pytest.mark.parametrize("split", ["val", "test"])
def test_choosing_and_judging_on_the_same_images_is_warned_of(split):
    section = threshold_section(run_data_of(**{split: scored(80, 2)}), NOTHING)
    assert "which flatters the threshold" in parts(section, Text)[0].text


def test_each_class_has_its_own_threshold_where_none_is_named():
    val, test = scored(200, 4, seed=1), scored(200, 4, seed=2)
    (table,) = parts(threshold_section(run_data_of(val=val, test=test), NOTHING), Table)
    assert [row[0] for row in table.rows] == list(test.labels)
    for number, row in enumerate(table.rows):
        threshold = float(row[1])
        found = metrics.f1_score(val.targets == number, val.probabilities[:, number] >= threshold)
        assert row[4] == pytest.approx(found, abs=1e-9)
        assert found == pytest.approx(
            max(
                metrics.f1_score(val.targets == number, val.probabilities[:, number] >= other)
                for other in np.unique(val.probabilities[:, number])
            )
        )
        judged = metrics.f1_score(test.targets == number, test.probabilities[:, number] >= threshold)
        assert row[7] == pytest.approx(judged, abs=1e-9)


def test_labels_without_a_validation_image_are_named():
    val, test = scored(60, 3, multilabel=True, absent=(1,)), scored(60, 3, multilabel=True)
    section = threshold_section(run_data_of(val=val, test=test), NOTHING)
    assert parts(section, Text)[0].text == "There is no image to choose a threshold on: class001."
    (table,) = parts(section, Table)
    assert table.rows[1][1:9] == (None,) * 8
    usual = metrics.f1_score(test.targets[:, 1], test.predicted[:, 1])
    assert table.rows[1][-1] == pytest.approx(usual, abs=1e-9)


def test_a_named_label_is_told_in_full_and_an_unknown_one_refused():
    run_data = run_data_of(val=scored(60, 3), test=scored(60, 3, seed=1))
    section = threshold_section(run_data, OperatingChoice(label="class002"))
    assert parts(section, FactList)[0].facts[0].name == "threshold of class002"
    with pytest.raises(ConfigError, match="operating.label=class02 is not a label"):
        threshold_section(run_data, OperatingChoice(label="class02"))


@pytest.mark.parametrize("label", ["bees", "two words", "a=b", "50% [old]", "it's", 'a "b"', "1e3", "true", "012", ""])
def test_commands_for_another_aim_name_the_label_as_the_command_line_reads_it(label):
    section = threshold_section(run_data_of(test=binary([0.9, 0.1], [1, 0], ("ants", label))), NOTHING)
    (code,) = parts(section, Code)
    for line in code.text.splitlines():
        words = shlex.split(line)
        assert words[:3] == ["finetune", "report", "run=abcd1234"]
        found = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(words[3:])}
        assert found["operating.label"] == label
        settings = OmegaConf.create({name.removeprefix("operating."): value for name, value in found.items()})
        assert OperatingChoice(**settings).number(("ants", label)) == 1


def test_a_threshold_that_flags_nothing_is_written_in_words():
    val = binary([0.9, 0.5], [0, 1])
    section = threshold_section(run_data_of(val=val, test=val), OperatingChoice(cost_fp=9, cost_fn=1))
    assert parts(section, FactList)[0].facts[0].value == "flag nothing"
