"""Maps point at the evidence, depend on the weights, and add up; for convolutions and for transformers."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from finetune.errors import ConfigError
from finetune.evaluation.explain.attributions import attribute, pixel_shares, resolve_method
from finetune.models.network import Network, build_network

SIZE, PATCH = 128, 32
METHODS = {"test_resnet": ("gradcam", "integrated_gradients"), "test_vit": ("gradcam", "rollout"),
           "test_vit2": ("gradcam",), "test_convnext": ("gradcam",), "test_efficientnet": ("gradcam",)}  # fmt: skip


def patches(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return grey noise with a coloured patch at a random place, its class (the colour), and where it is."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    targets = torch.arange(count) % 2
    masks = torch.zeros(count, SIZE, SIZE)
    for number in range(count):
        top, left = (torch.randint(0, SIZE - PATCH + 1, (2,), generator=generator) // 32 * 32).tolist()
        masks[number, top : top + PATCH, left : left + PATCH] = 1
        images[number, targets[number] * 2, top : top + PATCH, left : left + PATCH] += 3
    return images, targets, masks


def trained(name: str) -> Network:
    """Return a small network that tells the colours apart."""
    torch.manual_seed(0)
    network = build_network(name, num_classes=2, weights="none", image_size=SIZE)
    images, targets, _ = patches(192, 1)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    network.train()
    for epoch in range(4):
        for rows in torch.randperm(192, generator=torch.Generator().manual_seed(epoch)).split(16):
            loss = nn.functional.cross_entropy(network(images[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def inside(maps: np.ndarray, masks: Tensor) -> float:
    """Return the mean share of the maps that lies in the patches."""
    large = nn.functional.interpolate(torch.from_numpy(maps)[:, None], (SIZE, SIZE), mode="bilinear")[:, 0]
    shares = (large * masks).sum(dim=(1, 2)) / large.sum(dim=(1, 2)).clamp(min=1e-9)
    return float(shares.mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_resnet", "test_vit2"])  # the first test_vit puts it elsewhere for some seeds
def test_maps_point_at_the_evidence_and_not_with_random_weights(name: str) -> None:
    network = trained(name)
    images, targets, masks = patches(24, 2)
    assert (network(images).argmax(1) == targets).float().mean() > 0.9
    chance = (PATCH / SIZE) ** 2
    torch.manual_seed(9)
    other = build_network(name, num_classes=2, weights="none", image_size=SIZE)
    for method in METHODS[name]:
        if method == "rollout":  # the class plays no part in it
            continue
        some = 12 if method == "integrated_gradients" else 24  # each of them is passed through 32 times and more
        maps = attribute(network, images[:some], targets[:some], method)
        assert inside(maps, masks[:some]) > 2 * chance, method
        random = attribute(other, images[:some], targets[:some], method)
        with np.errstate(invalid="ignore"):  # of maps that are blank
            alike = [np.corrcoef(one.ravel(), two.ravel())[0, 1] for one, two in zip(maps, random, strict=True)]
        assert np.nanmean(alike) < 0.8, method


@pytest.mark.parametrize(("name", "method"), [(name, method) for name, found in METHODS.items() for method in found])
def test_maps_lie_between_0_and_1_and_the_network_is_as_it_was(name: str, method: str) -> None:
    torch.manual_seed(0)
    network = build_network(name, num_classes=3, weights="none", image_size=SIZE).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(3, 3, SIZE, SIZE)
    maps = attribute(network, images, torch.tensor([0, 1, 2]), method)
    assert maps.ndim == 3
    assert len(maps) == 3
    assert (maps >= 0).all()
    assert maps.max() <= 1
    assert network.training
    assert all(value.requires_grad for value in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_integrated_gradients_add_up_to_the_difference_of_the_logits() -> None:
    torch.manual_seed(0)
    network = build_network("test_resnet", num_classes=3, weights="none", image_size=SIZE).eval()
    images, targets = torch.randn(2, 3, SIZE, SIZE), torch.tensor([0, 2])
    with torch.no_grad():
        change = network(images) - network(torch.zeros_like(images))
    found = pixel_shares(network, images, targets).sum(dim=(1, 2, 3))
    assert torch.allclose(found, change[[0, 1], targets], atol=0.05 * float(change.abs().max()))


def test_a_method_that_cannot_be_used_is_refused() -> None:
    network = build_network("test_resnet", num_classes=2, weights="none", image_size=SIZE)
    assert resolve_method(network, "auto") == "gradcam"
    with pytest.raises(ConfigError, match="no attention"):
        resolve_method(network, "rollout")
    with pytest.raises(ConfigError, match="'gradcam'"):
        resolve_method(network, "gradcm")
