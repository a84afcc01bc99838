"""Whole images are chosen where what matters lies at their ends, and nothing where the crop shows it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from finetune.config.compose import conf_dir, register
from finetune.config.resolve import resolve
from finetune.config.settings.roots import TrainSettings
from finetune.data.cache.store import Cache
from finetune.data.table import ImageTable
from finetune.search.autoconfig.crop_mode import choose_crop, is_open
from finetune.search.autoconfig.dataset_facts import gather_facts
from finetune.training.build import load_table

register()


def composed(*overrides: str) -> TrainSettings:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolve(compose("train", ["data.image_size=64", "trainer=cpu", *overrides]), TrainSettings)


def draw(root: Path, offset: int) -> ImageTable:
    """Write wide images of noise, with a bright square at a distance from the middle in one of two classes."""
    random = np.random.default_rng(0)
    for number in range(96):
        pixels = random.integers(0, 120, (64, 192, 3), dtype=np.uint8)
        if number % 2:
            pixels[20:44, 84 + offset : 108 + offset] = 255
        folder = root / ("marked" if number % 2 else "plain")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return load_table(composed("data=folder", f"data.root={root}").data)


@pytest.mark.parametrize(("offset", "chosen"), [(80, ["data.crop_mode=squash"]), (0, [])])
def test_the_crop_is_given_up_where_it_hides_what_matters(tmp_path: Path, offset: int, chosen: list[str]) -> None:
    table, words = draw(tmp_path / "images", offset), ("data=folder", f"data.root={tmp_path / 'images'}")
    seen: list[str] = []

    def recompose(more: Sequence[str]) -> TrainSettings:
        seen.extend(more)
        return composed(*words, *more)

    found = choose_crop(table, Cache(tmp_path / "cache", 10**9), recompose)
    assert [choice.override for choice in found] == chosen
    assert seen == ["data.crop_mode=center", "data.crop_mode=squash"]
    assert len(table.rows("test")) > 0  # of which no feature was asked for: those of train alone are kept
    kept = [info.entries for info in Cache(tmp_path / "cache", 10**9).infos()]
    assert kept == [len(table.rows("train"))] * 2


def test_what_was_typed_or_cannot_be_judged_is_not_chosen(tmp_path: Path) -> None:
    config, table = composed(), load_table(composed().data)
    facts = gather_facts(table, on_cpu=True, batch_size=32)
    assert is_open(facts, config, lambda key: True)
    assert not is_open(facts, config, lambda key: key != "data.crop_mode")
    assert not is_open(facts, config, lambda key: key != "model.crop_pct")
    assert not is_open(facts, composed("model.weights=none"), lambda key: True)
