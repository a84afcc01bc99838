"""Words against imbalance, noise and overfitting move weights by two processes (gloo) as they do by one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ranks import run_ranks

WORDS = (
    "imbalance=none",
    "imbalance=class_weights",
    "imbalance=effective_number",
    "imbalance=focal",
    "imbalance=balanced_sampler",
    "imbalance=logit_adjust",
    "imbalance=oversample",
    "imbalance=undersample",
    "imbalance=augment_minority balance.views=2",
    "imbalance=class_weights data.balance_groups=[site]",
    "label_noise=smoothing",
    "label_noise=generalised_ce",
    "regularize.l1=0.02 regularize.l2_sp=0.1",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of noisy images of three shades of unequal number."""
    folder, generator = tmp_path_factory.mktemp("shades"), np.random.default_rng(0)
    rows = []
    for split, counts in {"train": (12, 24, 36), "val": (4, 4, 4), "test": (4, 4, 4)}.items():
        for label, count in enumerate(counts):
            for number in range(count):
                name = f"{split}{label}_{number}.png"
                pixels = generator.normal(90 + 30 * label, 40, (32, 32, 3)).clip(0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
                site = "north" if number % 3 else "south"
                rows.append({"path": name, "label": f"shade {label}", "split": split, "site": site})
    pd.DataFrame(rows).to_csv(folder / "shades.csv", index=False)
    return folder / "shades.csv"


@pytest.fixture(scope="module")
def weights(table: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[float]]]:
    """The heads' weights of each word, trained by one process and by two."""
    folder = tmp_path_factory.mktemp("words")
    words = [f"data.group_columns=[site] {word}" for word in WORDS]
    return [run_ranks("words_worker.py", size, folder / str(size), [str(table), *words]) for size in (1, 2)]


@pytest.mark.parametrize("word", WORDS)
def test_two_processes_train_like_one(weights: list[dict[str, list[float]]], word: str) -> None:
    one, two = (np.array(found[f"data.group_columns=[site] {word}"]) for found in weights)
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)


def test_each_word_does_something(weights: list[dict[str, list[float]]]) -> None:
    plain, *others = (np.array(found) for found in weights[0].values())
    for found, word in zip(others, WORDS[1:], strict=True):
        if word != "label_noise=smoothing":  # which the usual loss has already
            assert np.abs(found - plain).max() > 1e-4, word
