"""A map is drawn where the network looked, and nowhere else; maps are kept and read again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from finetune.data.transforms import InputSpec
from finetune.evaluation.explain.attribution_store import load_maps, maps_file, save_maps
from finetune.evaluation.explain.examples import choose_examples
from finetune.evaluation.explain.overlay import overlay, visible_box
from finetune.evaluation.explain.similar_images import most_similar
from finetune.evaluation.predictions import Predictions


def spec(crop_pct: float = 1.0, crop_mode: str = "center") -> InputSpec:
    return InputSpec(3, 96, 96, (0.5,) * 3, (0.5,) * 3, "bicubic", crop_pct, crop_mode)


@pytest.mark.parametrize(
    ("size", "given", "expected"),
    [
        ((200, 100), spec(), (0.25, 0, 0.75, 1)),
        ((100, 200), spec(), (0, 0.25, 1, 0.75)),
        ((100, 100), spec(0.8), (0.1, 0.1, 0.9, 0.9)),
        ((300, 100), spec(crop_mode="squash"), (0, 0, 1, 1)),
        ((300, 100), spec(crop_mode="border"), (0, -1, 1, 2)),
        ((100, 200), spec(crop_mode="border"), (-0.5, 0, 1.5, 1)),
        ((200, 100), spec(0.8, crop_mode="border"), (0.1, -0.3, 0.9, 1.3)),
    ],
)
def test_the_part_that_is_seen_is_that_of_the_transform(
    size: tuple[int, int], given: InputSpec, expected: tuple[float, ...]
) -> None:
    assert visible_box(given, size) == pytest.approx(expected, abs=0.015)


def test_outside_of_what_is_seen_the_image_is_as_it_was() -> None:
    image = Image.new("RGB", (200, 100), (90, 120, 60))
    values = np.zeros((8, 8), np.float32)
    values[2:4, 2:4] = 1
    drawn = np.asarray(overlay(image, values, (0.25, 0, 0.75, 1)))
    plain = np.asarray(image)
    assert drawn.shape == plain.shape
    assert (drawn[:, :49] == plain[:, :49]).all()
    assert (drawn[:, 151:] == plain[:, 151:]).all()
    changed = np.abs(drawn.astype(int) - plain).sum(axis=2)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert 25 <= row <= 50
    assert 75 <= column <= 100


def test_a_map_of_an_image_with_a_border_covers_the_image_where_it_lay() -> None:
    values = np.zeros((9, 9), np.float32)
    values[4, 0] = 1  # the middle of the left edge
    image = Image.new("RGB", (300, 100), (90, 120, 60))
    changed = np.abs(np.asarray(overlay(image, values, (0, -1, 1, 2)), int) - np.asarray(image)).sum(axis=2)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert 33 <= row <= 67 and column <= 33
    values = np.zeros((9, 9), np.float32)
    values[0] = 1  # of the border alone
    assert overlay(image, values, (0, -1, 1, 2)).tobytes() == image.tobytes()


def test_maps_are_kept_by_id_and_a_damaged_file_is_none(tmp_path: Path) -> None:
    assert load_maps(tmp_path) is None
    maps = {"a/1.jpg": np.eye(7, dtype=np.float32), "ü": np.full((3, 5), 0.25, np.float32)}
    save_maps(tmp_path, maps, "gradcam")
    found = load_maps(tmp_path)
    assert found is not None
    assert found[1] == "gradcam"
    assert all(np.allclose(found[0][name], value) for name, value in maps.items())
    maps_file(tmp_path).write_bytes(b"nothing")
    assert load_maps(tmp_path) is None


def test_examples_are_the_surest_of_each_class_the_worst_errors_and_others() -> None:
    generator = np.random.default_rng(0)
    number = 60
    targets = np.arange(number) % 3
    right = generator.random(number) < 0.8
    sure = generator.uniform(0.5, 1, number)
    probabilities = np.repeat(((1 - sure) / 2)[:, None], 3, axis=1)
    probabilities[np.arange(number), np.where(right, targets, (targets + 1) % 3)] = sure
    ids = np.array([str(row) for row in range(number)], object)
    predictions = Predictions(ids, ids, targets, probabilities, ("a", "b", "c"), "multiclass", pd.DataFrame())
    found = choose_examples(predictions, 6)
    assert sorted(targets[found["best"]]) == [0, 0, 1, 1, 2, 2]
    assert all(right[found["best"]])
    for label in range(3):
        rows = np.flatnonzero(right & (targets == label))
        assert rows[sure[rows].argmax()] in found["best"]
    wrong = np.flatnonzero(~right)
    assert found["worst"].tolist() == wrong[np.argsort(-sure[wrong])][:6].tolist()
    assert not set(found["random"]) & (set(found["best"]) | set(found["worst"]))
    assert all(np.array_equal(found[kind], choose_examples(predictions, 6)[kind]) for kind in found)


def test_neighbours_are_those_of_scikit_learn() -> None:
    from sklearn.neighbors import NearestNeighbors

    generator = np.random.default_rng(0)
    known, asked = (generator.normal(size=(count, 9)).astype(np.float32) for count in (50, 4))
    found = most_similar(known, asked, 5)
    distances, rows = NearestNeighbors(n_neighbors=5, metric="cosine").fit(known).kneighbors(asked)
    assert found.rows.tolist() == rows.tolist()
    assert found.similarity == pytest.approx(1 - distances, abs=1e-5)
    assert most_similar(known[:2], asked, 5).rows.shape == (4, 2)
