"""Folding: a backbone at rest without its norms gives the same features."""

import copy

import pytest
import torch
from torch import nn

from finetune.models.batchnorm_folding import convolutions_before_norms, fold_norms
from finetune.models.network import build_network


def backbone_of(name: str, size: int = 64) -> nn.Module:
    torch.manual_seed(0)
    backbone = build_network(name, num_classes=3, weights="none", image_size=size).backbone.eval()
    for module in backbone.modules():  # statistics as after training, not those of new weights
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return backbone


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "test_resnet", "test_byobnet", "resnet18", "mobilenetv3_small_050"]
)
def test_features_are_the_same_without_norms(name: str) -> None:
    backbone, images = backbone_of(name), torch.randn(4, 3, 64, 64)
    before = copy.deepcopy(backbone.state_dict())
    folded = fold_norms(backbone, images[:2])
    assert folded is not backbone
    norms = [m for m in folded.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) < sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules()) / 4
    with torch.no_grad():
        torch.testing.assert_close(folded(images), backbone(images), atol=1e-5, rtol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_a_backbone_without_such_norms_is_left_as_it_is(name: str) -> None:
    size = 160 if name == "test_vit" else 64
    backbone = backbone_of(name, size)
    assert fold_norms(backbone, torch.randn(2, 3, size, size)) is backbone


class Branching(nn.Module):
    """Uses the output of its convolution twice, so that the norm cannot become part of it."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made = self.conv(images)
        return (self.norm(made) + made).mean((2, 3))


def test_what_would_change_the_features_is_not_folded() -> None:
    backbone = Branching().eval()
    nn.init.constant_(backbone.norm.running_mean, 1.0)  # type: ignore[arg-type]
    images = torch.randn(2, 3, 16, 16)
    assert convolutions_before_norms(backbone, images) == [("conv", "norm")]
    assert fold_norms(backbone, images) is backbone
