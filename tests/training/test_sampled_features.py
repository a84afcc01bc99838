"""The features that a prediction hands out are those that went into the head, from images and from the cache alike."""

from pathlib import Path

import pytest
import torch
from tiny import strategy_config, tiny_images, tiny_table

from finetune.features.extract import FeatureSettings
from finetune.models.network import build_network
from finetune.training.fit import OptimizerSettings, Recipe, ResumePoint, build_classifier, predict_split
from finetune.training.losses import CrossEntropy
from finetune.training.phases import build_strategy
from finetune.training.schedules import Schedule
from finetune.training.trainer import TrainerSettings


@pytest.mark.parametrize("cached", [False, True])
def test_features_of_a_sample_are_the_backbones(tmp_path: Path, cached: bool) -> None:
    torch.manual_seed(0)
    table = tiny_table(train=8, val=13, test=4)
    network = build_network("test_efficientnet", num_classes=table.num_classes, weights="none", image_size=32).eval()
    settings = TrainerSettings(accelerator="cpu", devices=1, strategy="auto")
    recipe = Recipe(
        CrossEntropy(), OptimizerSettings(), Schedule("constant", 0.0, 1.0), settings,
        features=FeatureSettings(test_views=2),
    )  # fmt: skip
    images = tiny_images(table, network)
    phase = build_strategy(strategy_config("frozen")).phases[0]
    classifier = build_classifier(network, phase, recipe, 0, ResumePoint())
    rows = table.rows("val")
    found = predict_split(classifier, images, "val", recipe, tmp_path, cached=cached, sample=rows[[2, 5, 11]])
    with torch.no_grad():
        expected = torch.cat([network.backbone(part["image"]) for part in images.view_loader("val", 0)])
    assert found["sampled"].tolist() == rows[[2, 5, 11]].tolist()
    torch.testing.assert_close(found["features"], expected[[2, 5, 11]], atol=1e-4, rtol=1e-4)
    assert found["row"].tolist() == rows.tolist() and found["logits"].shape[:2] == (2, 13)
    without = predict_split(classifier, images, "val", recipe, tmp_path, cached=cached)
    assert len(without["features"]) == len(without["sampled"]) == 0
