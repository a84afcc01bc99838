"""Drift: nothing is found where nothing changed, changes of photos are found by a real network, and all is said."""

from pathlib import Path

import numpy as np
import pytest
import torch
from photos import photo
from PIL import Image, ImageEnhance, ImageFilter
from statsmodels.stats.multitest import multipletests

from finetune.data.transforms import InputSpec, eval_transform
from finetune.errors import ConfigError, RunError
from finetune.evaluation.drift.drift_report import (
    ALPHA,
    DriftSample,
    check_reference,
    drift_of_run,
    measure_drift,
    significant_shifts,
)
from finetune.evaluation.drift.reference import LIMIT, load_reference, sample_rows, save_reference, to_half_precision
from finetune.evaluation.drift.sample_recorder import SampleRecorder
from finetune.evaluation.drift.two_sample import Shift, feature_shift
from finetune.models.heads.feature_hook import inputs_of
from finetune.models.network import Network, build_network
from finetune.runs.run import Run

LABELS = ("ants", "bees", "wasps")
SPEC = InputSpec(3, 64, 64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 1.0)


def sample(seed: int, count: int, weights: tuple[float, ...] = (1.0, 1.0, 1.0), shift: float = 0.0) -> DriftSample:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(weights, count)
    return DriftSample(generator.normal(shift, 1.0, (count, 5)), probabilities)


def test_nothing_is_found_where_nothing_changed() -> None:
    found = [measure_drift(sample(2 * seed, 60), sample(2 * seed + 1, 40), LABELS)["drifted"] for seed in range(20)]
    assert sum(map(bool, found)) <= 2


def test_each_kind_of_drift_is_named() -> None:
    before = sample(0, 300)
    assert measure_drift(before, sample(1, 200, shift=1.0), LABELS)["drifted"] == ["inputs"]
    other_classes = measure_drift(before, sample(1, 200, (3.0, 1.0, 0.3)), LABELS)
    assert "classes" in other_classes["drifted"] and "inputs" not in other_classes["drifted"]
    rows = {row["label"]: row for row in other_classes["shares"]}
    assert rows["ants"]["now"] > 0.6 and rows["ants"]["before"] == pytest.approx(1 / 3, abs=0.1)
    assert measure_drift(before, sample(1, 200, (0.1, 0.1, 0.1)), LABELS)["drifted"] == ["confidence"]


def test_several_labels_are_compared_label_by_label() -> None:
    generator = np.random.default_rng(0)
    before, now = (DriftSample(None, generator.random((200, 3)) * [1, 1, high]) for high in (1, 0.6))
    found = measure_drift(before, now, LABELS, multilabel=True)
    assert "classes" in found["drifted"] and found["shares"][0]["label"] == "wasps"
    assert found["inputs"] is None and "kept no features" in found["notes"][0]


def test_few_images_are_said_to_be_few() -> None:
    assert "29 images are few" in " ".join(measure_drift(sample(0, 50), sample(1, 29), LABELS)["notes"])
    assert measure_drift(sample(0, 50), sample(1, 30), LABELS)["notes"] == []


@pytest.mark.parametrize(
    "ps", [(0.003, 0.004, 0.005), (0.003, 0.006, 0.0051), (0.5, 0.001, 0.006), (0.004, 0.02, 0.005)]
)
def test_many_tests_are_corrected_as_by_statsmodels(ps: tuple[float, ...]) -> None:
    shifts = {name: Shift(0.5, 0.1, p) for name, p in zip("abc", ps, strict=True)}
    rejected = multipletests(ps, alpha=ALPHA, method="holm")[0]
    assert significant_shifts(shifts) == [name for name, found in zip(shifts, rejected, strict=True) if found]


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return build_network("test_efficientnet", num_classes=3, weights="none", image_size=64).eval()


def features_of(network: Network, images: list[Image.Image]) -> np.ndarray:
    transform = eval_transform(SPEC)
    batch = torch.stack([transform(image) for image in images])
    seen: list[torch.Tensor] = []
    with torch.no_grad(), inputs_of(network.head, seen):
        network(batch)
    return seen[0].numpy()


def photos(first: int, count: int = 60) -> list[Image.Image]:
    return [photo((96, 96), seed) for seed in range(first, first + count)]


def test_changed_photos_are_found_and_unchanged_ones_are_not(network: Network) -> None:
    reference = features_of(network, photos(0))
    ways = {
        "unchanged": lambda image: image,
        "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(4)),
        "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.5),
        "grey": lambda image: image.convert("L").convert("RGB"),
    }
    found = {
        name: feature_shift(reference, features_of(network, [way(image) for image in photos(1000)]), permutations=199).p
        for name, way in ways.items()
    }
    assert found.pop("unchanged") > 0.05
    assert set(found.values()) == {1 / 200}


def test_inputs_of_a_head_are_the_pooled_features_and_are_seen_once(network: Network) -> None:
    images = torch.randn(2, 3, 64, 64)
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        with inputs_of(network.head, seen):
            network(images)
        network(images)
        (features,) = seen
        torch.testing.assert_close(features, network.backbone(images))


def test_reference_reads_back_as_it_was_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert load_reference(run) is None
    features = np.array([[1.0, 1e9], [-1e9, 0.1]], np.float32)
    save_reference(run, np.array([7, 9]), features)
    found = load_reference(run)
    assert found is not None and found.rows.tolist() == [7, 9]
    np.testing.assert_array_equal(found.features, to_half_precision(features))
    assert np.isfinite(found.features).all() and found.features.dtype == np.float16
    run.reference_file.write_bytes(b"torn")
    with pytest.raises(RunError, match=r"reference.safetensors is damaged .* Delete it"):
        load_reference(run)


def test_sample_is_always_the_same_and_never_larger_than_the_limit() -> None:
    rows = np.arange(10, 10 + LIMIT + 500)
    chosen = sample_rows(rows)
    assert len(set(chosen)) == LIMIT and set(chosen) <= set(rows)
    np.testing.assert_array_equal(chosen, sample_rows(rows))
    np.testing.assert_array_equal(sample_rows(rows[:5]), rows[:5])


def test_run_without_predictions_measures_nothing(tmp_path: Path) -> None:
    assert drift_of_run(Run(tmp_path), sample(0, 5), LABELS, "multiclass", seed=0) is None
    check_reference(Run(tmp_path), wanted=False)
    with pytest.raises(ConfigError, match=r"drift=true needs .*val.parquet is missing.*drift=false"):
        check_reference(Run(tmp_path), wanted=True)


def test_watched_images_are_a_sample_of_all_that_went_by() -> None:
    watch = SampleRecorder(5000)
    features = np.arange(5000.0)[:, None]
    for start in range(0, 5000, 64):
        watch.add(features[start : start + 64], features[start : start + 64] * 2)
    found = watch.sample
    assert found.features is not None and watch.passed == 5000
    np.testing.assert_array_equal(found.features[:, 0], sample_rows(np.arange(5000)))
    np.testing.assert_array_equal(found.probabilities, found.features * 2)
