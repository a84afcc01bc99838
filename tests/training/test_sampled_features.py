"""The features that a prediction hands out are those that went into the head, from images and from the cache alike."""

import pytest
import torch
from configured import settings_for
from tiny import tiny_images, tiny_table

from finetune.config.settings.training_groups import OptimizerSettings, Schedule, TrainerSettings
from finetune.features.extract import FeatureSettings
from finetune.models.network import build_network
from finetune.runtime.device import DevicePass
from finetune.training.fit import Recipe, predict_split
from finetune.training.losses import CrossEntropy

CPU = DevicePass(torch.device("cpu"))


@pytest.mark.parametrize("cached", [False, True])
def test_features_of_a_sample_are_the_backbones(cached: bool) -> None:
    torch.manual_seed(0)
    table = tiny_table(train=8, val=13, test=4)
    network = build_network("test_efficientnet", num_classes=table.num_classes, weights="none", image_size=32).eval()
    settings = settings_for(TrainerSettings, accelerator="cpu", devices=1, strategy="auto")
    recipe = Recipe(
        CrossEntropy(), settings_for(OptimizerSettings), settings_for(Schedule, "constant", 0.0, 1.0), settings,
        features=FeatureSettings(tta_views=2),
    )  # fmt: skip
    images = tiny_images(table, network)
    rows = table.rows("val")
    found = predict_split(network, images, "val", recipe, CPU, cached=cached, sample=rows[[2, 5, 11]])
    with torch.no_grad():
        expected = torch.cat([network.backbone(part["image"]) for part in images.view_loader("val", 0)])
    assert found.sampled.tolist() == rows[[2, 5, 11]].tolist()
    torch.testing.assert_close(torch.from_numpy(found.features), expected[[2, 5, 11]], atol=1e-4, rtol=1e-4)
    assert found.rows.tolist() == rows.tolist() and found.logits.shape[:2] == (2, 13)
    without = predict_split(network, images, "val", recipe, CPU, cached=cached)
    assert without.features is None and len(without.sampled) == 0
