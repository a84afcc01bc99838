"""Copies and near copies are found, others are not, and what follows from them is as defined."""

from pathlib import Path

import numpy as np
import pytest
from photos import photo
from PIL import Image, ImageEnhance

from finetune.audit.duplicates import DuplicateThresholds, Pairs, duplicate_groups, find_pairs, group_duplicates
from finetune.audit.image_stats import measure_image
from finetune.data.image_stores import FileStore
from finetune.data.table import content_digest


def pairs_of(*pairs: tuple[int, int]) -> Pairs:
    first, second = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    return Pairs(first, second, np.ones(len(pairs)), np.zeros(len(pairs), bool))


def look(file: Path) -> np.ndarray:
    """Return features (F,) that light does not change much, as those of a network."""
    pixels = np.asarray(Image.open(file).convert("RGB").resize((12, 9)), np.float32).ravel()
    return (pixels - pixels.mean()) / pixels.std()


def test_copies_with_other_pixels_are_found_and_other_photos_are_not(tmp_path: Path) -> None:
    originals = [photo((240, 180), seed) for seed in range(6)]
    changed = {
        "brighter": ImageEnhance.Brightness(originals[0]).enhance(1.25),
        "half": originals[1].resize((120, 90)),
        "cropped": originals[2].crop((4, 4, 236, 176)),
        "compressed": originals[3],
    }
    files = []
    for number, image in enumerate(originals):
        image.save(tmp_path / f"{number}.png")
        files.append(tmp_path / f"{number}.png")
    for name, image in changed.items():
        image.save(tmp_path / f"{name}.jpg", quality=40 if name == "compressed" else 90)
        files.append(tmp_path / f"{name}.jpg")
    store = FileStore()
    bits = np.stack([measure_image(store, str(file)).bits for file in files])
    features = np.stack([look(file) for file in files])
    found = find_pairs([content_digest(file.read_bytes()) for file in files], bits, features, DuplicateThresholds())
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == {(0, 6), (1, 7), (2, 8), (3, 9)}
    assert not found.exact.any()


def test_exact_copies_are_found_whatever_their_features() -> None:
    bits = np.zeros((4, 64), np.uint8)
    bits[1:] = 1
    features = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    found = find_pairs(["a", "b", "a", "c"], bits, features, DuplicateThresholds(hash_distance=0, similarity=1.0))
    assert (found.first.tolist(), found.second.tolist(), found.exact.tolist()) == ([0], [2], [True])


def test_alike_hashes_alone_are_no_duplicates() -> None:
    features = np.eye(3, 8, dtype=np.float32)
    assert len(find_pairs(["a", "b", "c"], np.zeros((3, 64), np.uint8), features, DuplicateThresholds())) == 0


def test_blocks_of_rows_give_the_pairs_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    features = generator.normal(size=(40, 16)).astype(np.float32)
    features[20:] = features[:20]
    bits = generator.integers(0, 2, (40, 64), dtype=np.uint8)
    bits[20:] = bits[:20]
    names = [str(number) for number in range(40)]
    whole = find_pairs(names, bits, features, DuplicateThresholds())
    monkeypatch.setattr("finetune.audit.duplicates.BLOCK", 7)
    parts = find_pairs(names, bits, features, DuplicateThresholds())
    assert (whole.first.tolist(), whole.second.tolist()) == (list(range(20)), list(range(20, 40)))
    assert (parts.first.tolist(), parts.second.tolist()) == (whole.first.tolist(), whole.second.tolist())


def test_the_later_split_leaks_and_other_labels_conflict() -> None:
    found = group_duplicates(
        pairs_of((0, 1), (2, 3), (4, 5)),
        ["train", "test", "val", "test", "train", "train"],
        [("a",), ("a",), ("a",), ("b",), ("a",), ("a",)],
    )
    assert found.leaking.tolist() == [False, True, False, True, False, False]
    assert found.conflicting.tolist() == [False, False, True, True, False, False]


def test_pairs_that_share_an_image_are_one_group() -> None:
    assert duplicate_groups(pairs_of((1, 2), (2, 4), (5, 6)), 8).tolist() == [0, 1, 1, 0, 1, 2, 2, 0]
