"""Predictions survive the file unchanged, and a file that is not theirs is refused in one line."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from finetune.errors import DataError, RunError
from finetune.evaluation.predictions import Predictions, to_probabilities


def make_predictions(task="multiclass", num=4, groups=None):
    generator = np.random.default_rng(0)
    labels = ("ants", "bees", "große Käfer")
    targets = generator.integers(0, 3, num) if task == "multiclass" else generator.integers(0, 2, (num, 3))
    return Predictions(
        ids=np.array([f"id{i}" for i in range(num)], object),
        paths=np.array([f"a/{i}.jpg" for i in range(num)], object),
        targets=targets,
        probabilities=to_probabilities(generator.normal(size=(num, 3)), task),
        labels=labels,
        task=task,
        groups=pd.DataFrame(groups or {}, index=range(num)),
    )


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("num", [0, 1, 4])
def test_file_gives_back_what_was_saved(tmp_path, task, num):
    saved = make_predictions(task, num)
    saved.save(tmp_path / "predictions" / "test.parquet")
    loaded = Predictions.load(tmp_path / "predictions" / "test.parquet")
    for name in ("ids", "paths", "targets", "probabilities"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
    assert (loaded.labels, loaded.task, loaded.probabilities.dtype) == (saved.labels, saved.task, np.float32)


def test_group_columns_survive_the_file(tmp_path):
    saved = make_predictions(groups={"patient": ["a", "a", "b", None], "age": [1, 2, 3, 4]})
    saved.save(tmp_path / "test.parquet")
    pd.testing.assert_frame_equal(Predictions.load(tmp_path / "test.parquet").groups, saved.groups)


def test_columns_of_the_file_are_those_of_the_run_folder(tmp_path):
    make_predictions(groups={"patient": list("abcd")}).save(tmp_path / "test.parquet")
    table = pq.read_table(tmp_path / "test.parquet")
    assert table.column_names == [
        *("id", "path", "target", "label", "predicted"),
        *("probability/ants", "probability/bees", "probability/große Käfer", "patient"),
    ]
    types = {name: str(table.schema.field(name).type) for name in ("target", "probability/ants")}
    assert types == {"target": "int64", "probability/ants": "float"}


def test_multilabel_file_holds_indicators_and_joined_names(tmp_path):
    predictions = Predictions(
        ids=np.array(["x", "y"], object),
        paths=np.array(["x", "y"], object),
        targets=np.array([[1, 0, 1], [0, 0, 0]]),
        probabilities=np.array([[0.9, 0.8, 0.5], [0.1, 0.2, 0.3]]),
        labels=("a", "b", "c"),
        task="multilabel",
        groups=pd.DataFrame(),
    )
    predictions.save(tmp_path / "test.parquet")
    frame = pq.read_table(tmp_path / "test.parquet").to_pandas()
    assert [list(row) for row in frame["target"]] == [[1, 0, 1], [0, 0, 0]]
    assert list(frame["label"]) == ["a|c", ""]
    assert list(frame["predicted"]) == ["a|b", ""]


def test_first_of_equal_probabilities_is_predicted():
    predictions = Predictions(
        np.array(["x"]),
        np.array(["x"]),
        np.array([1]),
        np.full((1, 4), 0.25),
        tuple("abcd"),
        "multiclass",
        pd.DataFrame(),
    )
    assert predictions.predicted_names == ["a"]


def test_huge_logits_become_probabilities():
    np.testing.assert_allclose(to_probabilities(np.array([[1e4, 0.0, -1e4]]), "multiclass"), [[1, 0, 0]])
    np.testing.assert_allclose(to_probabilities(np.array([[1e4, 0.0, -1e4]]), "multilabel"), [[1, 0.5, 0]])


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_probabilities_of_several_views_are_averaged(task):
    views = np.random.default_rng(0).normal(size=(3, 5, 4)) * 4
    expected = np.mean([to_probabilities(view, task) for view in views], axis=0)
    np.testing.assert_allclose(to_probabilities(views, task), expected, rtol=1e-6)
    np.testing.assert_allclose(to_probabilities(views[:1], task), to_probabilities(views[0], task))


def test_logits_that_are_not_numbers_are_refused():
    with pytest.raises(RunError, match="1 of 2 images"):
        probabilities = to_probabilities(np.array([[np.nan, 0.0], [1.0, 2.0]]), "multiclass")
        Predictions(
            np.arange(2), np.arange(2), np.zeros(2, int), probabilities, ("a", "b"), "multiclass", pd.DataFrame()
        )


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"\(2, 3\)"):
        Predictions(
            np.arange(2), np.arange(2), np.zeros(2, int), np.zeros((2, 2)), tuple("abc"), "multiclass", pd.DataFrame()
        )
    with pytest.raises(DataError, match=r"0\.\.1"):
        Predictions(
            np.arange(2), np.arange(2), np.array([0, 2]), np.zeros((2, 2)), tuple("ab"), "multiclass", pd.DataFrame()
        )
    with pytest.raises(DataError, match="label"):
        make_predictions(groups={"label": list("abcd")})


def test_missing_foreign_and_cut_files_give_one_clear_line(tmp_path):
    with pytest.raises(RunError, match="no predictions at"):
        Predictions.load(tmp_path / "none.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(RunError, match="not a readable Parquet file"):
        Predictions.load(tmp_path / "broken.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(RunError, match="not written by finetune"):
        Predictions.load(tmp_path / "foreign.parquet")
    make_predictions().save(tmp_path / "cut.parquet")
    table = pq.read_table(tmp_path / "cut.parquet")
    pq.write_table(table.drop_columns(["probability/bees", "target"]), tmp_path / "cut.parquet")
    with pytest.raises(RunError, match="lacks the columns target, probability/bees"):
        Predictions.load(tmp_path / "cut.parquet")
