"""Accuracies on corrupted images are those of the network on such images, and their intervals are sound."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_table

from finetune.data.table import ImageTable
from finetune.data.transforms import eval_transform
from finetune.evaluation.rerun_settings import InferenceSettings
from finetune.evaluation.robustness.corrupted_accuracy import correct_answers, measure_corruptions, robustness_document
from finetune.evaluation.robustness.corruptions import corrupt
from finetune.models.bundle import Bundle
from finetune.models.network import build_network
from finetune.runtime.device import DevicePass

WAYS = (("jpeg", 5), ("gaussian_noise", 5), ("gaussian_noise", 1))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    network = build_network("test_efficientnet", num_classes=10, weights="none", image_size=32)
    for parameter in network.head.parameters():
        torch.nn.init.normal_(parameter)
    return Bundle(network.eval(), tuple("0123456789"), "multiclass")


@pytest.fixture(scope="module")
def table() -> ImageTable:
    return tiny_table(train=3, val=3, test=14)


def measured(bundle: Bundle, table: ImageTable, batch: int = 64, workers: int = 0, seed: int = 0) -> Any:
    settings = InferenceSettings(DevicePass(CPU), batch, workers)
    return np.concatenate(list(measure_corruptions(bundle, table, table.rows("test"), WAYS, settings, seed)), axis=1)


def test_answers_are_those_of_the_network_on_images_corrupted_one_by_one(bundle: Bundle, table: ImageTable) -> None:
    found = measured(bundle, table)
    assert found.shape == (4, 14)
    transform = eval_transform(bundle.network.spec)
    for place, row in enumerate(table.rows("test")):
        image = transform.pixels(table.store.open(table.frame["path"].iloc[row], 3))
        key = str(table.frame["id"].iloc[row])
        shown = [image, *(corrupt(image, name, severity, seed=0, key=key) for name, severity in WAYS)]
        with torch.no_grad():
            said = bundle.network(torch.stack([transform.tensor(each) for each in shown])).argmax(1).numpy()
        assert found[:, place].tolist() == (said == table.targets()[row]).tolist()


@pytest.mark.parametrize(("batch", "workers"), [(3, 0), (8, 2)])
def test_answers_do_not_depend_on_batches_or_workers(
    bundle: Bundle, table: ImageTable, batch: int, workers: int
) -> None:
    assert np.array_equal(measured(bundle, table, batch, workers), measured(bundle, table))


def test_several_labels_count_each_by_itself() -> None:
    logits = np.array([[[2.0, -1.0, 0.5, 3.0]]])
    assert correct_answers(logits, np.array([[1, 0, 0, 1]]), "multilabel").tolist() == [[0.75]]


def values(number: int = 400) -> Any:
    generator = np.random.default_rng(0)
    return (generator.random((4, number)) < np.array([0.9, 0.5, 0.3, 0.7])[:, None]).astype(float)


def test_means_and_the_relative_accuracy_are_those_of_their_definition() -> None:
    right_answers = values()
    found = robustness_document(right_answers, WAYS, resamples=50, seed=0)
    means = right_answers.mean(axis=1)
    assert found["passes"] == 4 and found["n"] == 400
    assert found["clean"]["value"] == pytest.approx(means[0])
    assert found["corruptions"]["jpeg"]["severities"]["5"]["value"] == pytest.approx(means[1])
    assert found["corruptions"]["gaussian_noise"]["mean"]["value"] == pytest.approx(means[2:].mean())
    assert found["mean"]["value"] == pytest.approx(means[1:].mean())
    assert found["relative"]["value"] == pytest.approx(means[1:].mean() / means[0])


def test_intervals_are_those_of_the_normal_approximation() -> None:
    right_answers = values(2000)
    found = robustness_document(right_answers, WAYS, resamples=2000, seed=0)
    pairs = [(found["clean"], right_answers[0]), (found["mean"], right_answers[1:].mean(axis=0))]
    for score, each in pairs:
        error = 1.96 * each.std() / np.sqrt(2000)
        assert score["low"] == pytest.approx(each.mean() - error, abs=0.1 * error)
        assert score["high"] == pytest.approx(each.mean() + error, abs=0.1 * error)
    # of a ratio of means, by the delta method
    clean, wrong = right_answers[0], right_answers[1:].mean(axis=0)
    ratio = wrong.mean() / clean.mean()
    error = 1.96 * (wrong - ratio * clean).std() / clean.mean() / np.sqrt(2000)
    assert found["relative"]["high"] - found["relative"]["low"] == pytest.approx(2 * error, rel=0.1)


def test_what_is_not_defined_is_none() -> None:
    found = robustness_document(np.zeros((4, 20)), WAYS, resamples=20, seed=0)
    assert found["relative"] == {"value": None, "low": None, "high": None}
    assert found["clean"]["low"] == 0 and found["clean"]["high"] == pytest.approx(1 - 0.025 ** (1 / 20))
    without = robustness_document(values(), WAYS, resamples=0, seed=0)
    assert without["mean"]["low"] is None and without["mean"]["value"] is not None
