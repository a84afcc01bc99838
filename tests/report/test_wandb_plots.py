"""What is sent to W&B is drawn as its own plots are, stays small, and shows the worst errors first."""

import numpy as np
import pandas as pd
import pytest
import wandb
from scored import predicted, scored
from sklearn import metrics
from wandb_log import read_logs
from wandb_parts import create, tracked

from finetune.evaluation.predictions import Predictions
from finetune.report.wandb_plots import OTHERS, charts_of, confusion_chart, predictions_table

TABLE = "test/predictions"


def rows_of(chart):
    return chart.table.data if hasattr(chart, "table") else chart.data


def test_charts_are_those_of_wandbs_own_functions():
    predictions = scored(60, 3)
    charts = charts_of(predictions, "test", rows=10)
    names = list(predictions.labels)
    arguments = (predictions.targets, predictions.probabilities, names)
    own = {
        "test/roc": wandb.plot.roc_curve(*arguments),
        "test/precision_recall": wandb.plot.pr_curve(*arguments),
        "test/confusion_matrix": wandb.plot.confusion_matrix(
            predictions.probabilities, predictions.targets, class_names=names
        ),
    }
    assert set(charts) == {*own, "test/predictions"}
    for name, chart in own.items():
        spec = charts[name].spec
        assert (spec.spec_name, spec.fields) == (chart.spec.spec_name, chart.spec.fields)
        assert set(spec.string_fields) == set(chart.spec.string_fields)
        assert set(charts[name].table.columns) == set(chart.table.columns)
    assert rows_of(charts["test/confusion_matrix"]) == rows_of(own["test/confusion_matrix"])


def test_roc_of_a_class_is_scikit_learns_also_where_another_class_has_no_image():
    predictions = scored(50, 4, absent=(1,))
    rows = rows_of(charts_of(predictions, "val", rows=0)["val/roc"])
    for number in (0, 2, 3):
        points = [row[1:] for row in rows if row[0].startswith(predictions.labels[number])]
        x, y, _ = metrics.roc_curve(predictions.targets == number, predictions.probabilities[:, number])
        np.testing.assert_allclose(np.array(points).T, [x, y], atol=1e-9)
    assert not any(row[0].startswith("class001") for row in rows)


@pytest.mark.parametrize("multilabel", [False, True])
def test_ten_thousand_images_of_two_hundred_classes_stay_small(multilabel):
    charts = charts_of(scored(10_000, 200, multilabel=multilabel, sure=3.0), "test", rows=500)
    sizes = {name: len(rows_of(chart)) for name, chart in charts.items()}
    assert sizes["test/predictions"] == 500
    assert max(sizes.values()) <= 2500
    assert sum(sizes.values()) <= 5000


def test_matrix_of_many_classes_keeps_those_with_errors_and_every_image():
    targets = np.repeat(np.arange(80), 3)
    guesses = np.where(targets == 77, 78, targets)
    rows = rows_of(confusion_chart(predicted(targets, np.eye(80)[guesses])))
    assert sum(row[2] for row in rows) == 240
    assert ["class077", "class078", 3] in rows
    assert {row[0] for row in rows} >= {"class077", "class078", OTHERS}
    assert len(rows) == 2500
    assert not any(row[2] for row in rows if (row[0] == OTHERS) != (row[1] == OTHERS))


def test_errors_come_first_with_the_surest_on_top():
    probabilities = [[0.9, 0.1], [0.4, 0.6], [0.05, 0.95], [0.55, 0.45]]
    rows = predictions_table(predicted([0, 0, 0, 0], probabilities), rows=3).data
    assert [row[0] for row in rows] == ["image2", "image1", "image3"]
    assert rows[0][1:3] == ["class000", "class001"]
    assert rows[0][3:] == pytest.approx([0.95, -np.log(0.05)], abs=1e-5)


def test_images_with_several_labels_are_errors_when_one_label_is_wrong():
    predictions = predicted([[1, 0], [1, 1], [0, 0]], [[0.99, 0.02], [0.9, 0.45], [0.3, 0.1]])
    rows = predictions_table(predictions, rows=10).data
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("image1", "class000|class001", "class000"),
        ("image2", "", ""),
        ("image0", "class000", "class000"),
    ]
    assert [row[3] for row in rows] == pytest.approx([0.55, 0.7, 0.98], abs=1e-5)
    assert rows_of(charts_of(predictions, "test", rows=1)["test/decisions"])[1] == ["class001", 0, 0, 1, 2]


def test_group_columns_are_sent_as_text():
    found = predicted([0, 1], [[0.9, 0.1], [0.2, 0.8]])
    groups = pd.DataFrame({"site": ["A", None], "age": [41, 7]})
    parts = (found.ids, found.paths, found.targets, found.probabilities, found.labels, found.task)
    table = predictions_table(Predictions(*parts, groups), rows=5)
    assert table.columns[-2:] == ["site", "age"]
    assert {row[0]: row[-2:] for row in table.data} == {"image0": ["A", "41"], "image1": ["", "7"]}


@pytest.mark.usefixtures("logged_out")
def test_an_offline_run_records_them_without_an_image(tmp_path):
    run = create(tmp_path / "runs" / "one")
    tracker = tracked(run)
    tracker.log_charts(charts_of(scored(30, 3), "test", rows=20))
    tracker.finish(0)
    (log,) = read_logs(run.path)
    kept = {name.removesuffix(".nrows"): size for name, size in log.summary.items() if name.endswith(".nrows")}
    assert set(kept) == {*(f"test/{name}_table" for name in ("roc", "precision_recall", "confusion_matrix")), TABLE}
    assert (kept[TABLE], kept["test/confusion_matrix_table"]) == (20, 9)
    assert not list(run.path.rglob("*.png"))
