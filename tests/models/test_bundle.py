"""A stored model sees images as it was trained to."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.models.bundle import load_bundle, save_bundle
from finetune.models.network import HeadSpec, build_network
from finetune.uncertainty.scaling import Scaling


def stored(folder: Path, *, exact: bool) -> Path:
    network = build_network("test_resnet", num_classes=2, weights="none", head=HeadSpec("linear", 8, 0.0))
    network.spec = replace(network.spec, exact=exact)
    save_bundle(network, ("a", "b"), "multiclass", folder)
    return folder


@pytest.mark.parametrize("exact", [True, False])
def test_a_stored_model_reads_images_as_in_training(tmp_path: Path, exact: bool) -> None:
    assert load_bundle(stored(tmp_path, exact=exact)).network.spec.exact is exact


@pytest.mark.parametrize("mode", ["squash", "border"])
def test_a_stored_model_is_shown_whole_images_where_it_was_in_training(tmp_path: Path, mode: str) -> None:
    network = build_network("test_resnet", num_classes=2, weights="none", crop_mode=mode)
    save_bundle(network, ("a", "b"), "multiclass", tmp_path)
    found = load_bundle(tmp_path).network.spec
    assert found == network.spec and (found.crop_mode, found.crop_pct) == (mode, 1.0)


def test_a_model_stored_before_there_was_a_choice_reads_images_exactly(tmp_path: Path) -> None:
    file = stored(tmp_path, exact=False) / "model.json"
    meta = json.loads(file.read_text())
    del meta["input"]["exact"]
    file.write_text(json.dumps(meta))
    assert load_bundle(tmp_path).network.spec.exact


def test_a_stored_model_keeps_its_calibration(tmp_path: Path) -> None:
    network = load_bundle(stored(tmp_path, exact=False)).network
    for scaling in (Scaling("temperature", (0.6,)), Scaling("vector", (2.0, 0.5), (0.1, -0.1)), Scaling()):
        save_bundle(network, ("a", "b"), "multiclass", tmp_path, scaling)
        assert load_bundle(tmp_path).scaling == scaling
        assert json.loads((tmp_path / "model.json").read_text())["temperature"] == scaling.temperature


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_model_stored_with_a_temperature_alone_divides_by_it(tmp_path: Path, temperature: float) -> None:
    file = stored(tmp_path, exact=False) / "model.json"
    meta = json.loads(file.read_text())
    del meta["calibration"]
    file.write_text(json.dumps({**meta, "temperature": temperature}))
    found = load_bundle(tmp_path).calibrate(np.array([[1.0, -3.0]]))
    assert found[0, 0] - found[0, 1] == pytest.approx(4 / temperature)
