"""Images unlike the others are named, and a set of equals has none."""

from pathlib import Path

import numpy as np
from PIL import Image

from finetune.audit.image_stats import ImageStats, measure_image
from finetune.audit.outliers import FAR_FEATURES, file_anomalies, outlier_scores
from finetune.data.image_stores import FileStore

BITS = np.zeros(64, np.uint8)


def facts(width: int = 100, height: int = 80, mode: str = "RGB", frames: int = 1, contrast: float = 50.0) -> ImageStats:
    return ImageStats(width, height, mode, frames, BITS, contrast)


def test_what_is_odd_about_a_file_is_said() -> None:
    usual = [facts(100 + number % 7, 80) for number in range(40)]
    odd = [facts(9, 7), facts(900, 100), facts(mode="RGBA"), facts(frames=3), facts(contrast=0.5)]
    found = file_anomalies([*usual, *odd])
    assert not any(found[:40])
    assert [words.split(" ")[0] for words in found[40:]] == ["size", "size", "mode", "3", "shows"]
    assert "tiny" in found[40]
    assert "sides 900 to 100" in found[41]


def test_mixed_modes_are_not_odd() -> None:
    assert not any(file_anomalies([facts(mode=mode) for mode in ("L", "RGB") * 10]))


def test_an_image_from_elsewhere_is_an_outlier_and_no_other() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 32)).astype(np.float32)
    features[50] += 12
    assert np.flatnonzero(outlier_scores(features) > FAR_FEATURES).tolist() == [50]
    assert outlier_scores(features[:4]).tolist() == [0, 0, 0, 0]


def test_facts_are_those_of_the_file_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("L", (40, 20), 128).save(tmp_path / "turned.jpg", exif=exif)
    found = measure_image(FileStore(), str(tmp_path / "turned.jpg"))
    assert (found.width, found.height, found.mode, found.frames) == (20, 40, "L", 1)
    assert found.contrast < 1
    frames = [Image.new("P", (8, 8), number) for number in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert measure_image(FileStore(), str(tmp_path / "moving.gif")).frames >= 1
