"""A stored model sees images as it was trained to."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.models.bundle import load_bundle, save_bundle
from finetune.models.network import HeadSpec, build_network


def stored(folder: Path, *, exact: bool) -> Path:
    network = build_network("test_resnet", num_classes=2, weights="none", head=HeadSpec("linear", 8, 0.0))
    network.spec = replace(network.spec, exact=exact)
    save_bundle(network, ("a", "b"), "multiclass", folder)
    return folder


@pytest.mark.parametrize("exact", [True, False])
def test_a_stored_model_reads_images_as_in_training(tmp_path: Path, exact: bool) -> None:
    assert load_bundle(stored(tmp_path, exact=exact)).network.spec.exact is exact


def test_a_model_stored_before_there_was_a_choice_reads_images_exactly(tmp_path: Path) -> None:
    file = stored(tmp_path, exact=False) / "model.json"
    meta = json.loads(file.read_text())
    del meta["input"]["exact"]
    file.write_text(json.dumps(meta))
    assert load_bundle(tmp_path).network.spec.exact
