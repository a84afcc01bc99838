"""Footprints: each backbone is measured as it would be alone, and the failure of one is its own."""

import torch
from torch import nn

from finetune.models.cost import peak_memory
from finetune.models.network import build_network
from finetune.search.ranking.latency import footprints


def test_one_backbone_that_fails_does_not_sink_the_others() -> None:
    networks = {
        name: build_network(name, num_classes=3, weights="none", image_size=32) for name in ("test_vit", "test_resnet")
    }
    broken = build_network("test_efficientnet", num_classes=3, weights="none", image_size=32)
    broken.backbone.blocks = nn.Conv2d(999, 1, 1)
    cpu = torch.device("cpu")
    measured = footprints({**networks, "broken": broken}, batch=4, repeats=2, device=cpu, precision="32-true")
    assert isinstance(measured.pop("broken"), RuntimeError)
    for name, network in networks.items():
        found = measured[name]
        assert not isinstance(found, Exception)
        assert found.parameters == sum(value.numel() for value in network.backbone.parameters())
        assert found.peak_memory == peak_memory(network, 4, device=cpu)
        assert found.latency_ms > 0 and found.latency_batch_ms > 0
