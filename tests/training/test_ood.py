"""The density of a run is fitted on features of its training images, from images and from the cache alike."""

from functools import partial

import numpy as np
import pytest
import torch
from configured import settings_for
from tiny import tiny_images, tiny_table

from finetune.config.settings.run_groups import OodSettings
from finetune.config.settings.training_groups import OptimizerSettings, Schedule, TrainerSettings
from finetune.evaluation.drift.reference import sample_rows
from finetune.features.extract import FeatureSettings
from finetune.models.network import build_network
from finetune.runtime.device import DevicePass
from finetune.training.fit import Recipe, predict_split
from finetune.training.losses import CrossEntropy
from finetune.training.ood import features_and_targets, fit_ood
from finetune.uncertainty.ood.densities import NeighbourDensity

CPU = DevicePass(torch.device("cpu"))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("limit", [5, 100])
def test_the_density_holds_features_of_training_images_in_their_first_view(cached: bool, limit: int) -> None:
    torch.manual_seed(0)
    table = tiny_table(train=12, val=9, test=4)
    network = build_network("test_efficientnet", num_classes=table.num_classes, weights="none", image_size=32).eval()
    trainer = settings_for(TrainerSettings, accelerator="cpu", devices=1, strategy="auto")
    recipe = Recipe(
        CrossEntropy(), settings_for(OptimizerSettings), settings_for(Schedule, "constant", 0.0, 1.0), trainer,
        features=FeatureSettings(tta_views=2),
    )  # fmt: skip
    images = tiny_images(table, network)
    outputs = predict_split(network, images, "val", recipe, CPU, sample=table.rows("val")[::2])
    held_out = outputs.of_sample
    assert held_out.features is not None and held_out.features.shape[0] == 5 and held_out.logits.shape[:2] == (2, 5)
    np.testing.assert_array_equal(held_out.logits, outputs.logits[:, ::2])
    settings = settings_for(OodSettings, "knn", neighbours=1, images=limit)
    look = partial(features_and_targets, network=network, images=images, recipe=recipe, device_pass=CPU, cached=cached)
    found = fit_ood(settings, table.task, table.rows("train"), held_out, look)
    assert found is not None and isinstance(found.density, NeighbourDensity)
    with torch.no_grad():
        features = torch.cat([network.backbone(part["image"]) for part in images.view_loader("train", 0)]).numpy()
    rows = sample_rows(table.rows("train"), limit)
    chosen = features[np.isin(table.rows("train"), rows)]
    expected = chosen / np.linalg.norm(chosen, axis=1, keepdims=True)
    assert found.fitted_on == min(limit, 12) and found.held_out == 5
    np.testing.assert_allclose(found.density.bank.astype(np.float32), expected, atol=2e-3)
    assert len(images.table.rows("train")) == 12  # the run's own images are as they were


def test_no_score_needs_no_pass() -> None:
    assert fit_ood(settings_for(OodSettings, "none"), None, None, None, None) is None  # type: ignore[arg-type]
