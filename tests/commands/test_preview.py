"""The command preview writes a page of what training and evaluation see, without weights."""

import re
from pathlib import Path

import pytest
from command import finetune
from photos import photo

LIGHT = ("model=timm", "model.name=test_resnet", "model.weights=timm", "data.image_size=32")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(20):
        place = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        photo((60, 40), number).save(place)
    return tmp_path / "photos"


def test_a_page_shows_and_tells_what_is_done(tmp_path: Path, photos: Path) -> None:
    typed = ("data=folder", f"data.root={photos}", *LIGHT, "augment=strong", "data.crop_mode=border")
    said = finetune("preview", *typed, "preview.images=3", "preview.views=2", folder=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "the whole image in a frame of 32 x 32 pixels" in said.stdout and "CutMix" in said.stdout
    page = (tmp_path / "preview.html").read_text(encoding="utf-8")
    assert page.count("<img") == 3 * (2 + 2) + 2 * 3  # each in four ways, and mixed in two
    assert "a: a/" in page and "b: b/" in page and "augment.rand_augment" in page
    assert not re.search(r"(src|href)=.http|@import|url\(http", page)
    assert f"finetune data=folder data.root={photos}" in page and "preview.images" not in page
    assert not (tmp_path / "runs").exists()

    refused = finetune("preview", *typed, "augment.rotate=90", folder=tmp_path)
    assert refused.returncode == 2 and "augment.quarter_turns=true" in refused.stderr
