"""The layers of a head: what they compute, and what folding them together keeps."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from finetune.errors import ConfigError
from finetune.models.bundle import load_bundle, save_bundle
from finetune.models.heads.modules import CosineLinear, HeadSpec, Standardize, build_head, fold_standardize
from finetune.models.network import build_network

KINDS = ("linear", "mlp", "cosine")


def standardizing(kind: str, features: torch.Tensor, num_classes: int = 3) -> nn.Sequential:
    """Return a head that standardises by the statistics of some features, and whose weights are not small."""
    head = build_head(HeadSpec(kind, 16, 0.1, True), features.shape[1], num_classes).eval()  # type: ignore[arg-type]
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert isinstance(head[0], Standardize)
    head[0].set_statistics(features.mean(0), features.std(0, correction=0))
    return head


@given(st.integers(0, 1000), st.sampled_from(KINDS))
def test_folding_keeps_the_outputs_and_the_head(seed: int, kind: str) -> None:
    torch.manual_seed(seed)
    features = torch.randn(20, 7) * 3 * torch.rand(7) + 2 * torch.randn(7)
    head = standardizing(kind, features)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    folded = fold_standardize(head)
    assert torch.allclose(folded(features), head(features), atol=1e-5, rtol=1e-5)
    assert isinstance(folded[0], Standardize) == (kind == "cosine")
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("standardize", [False, True])
def test_new_head_is_rebuilt_from_its_specification(kind: str, standardize: bool) -> None:
    spec = HeadSpec(kind, 8, 0.0, standardize)  # type: ignore[arg-type]
    first, second = build_head(spec, 5, 3), build_head(spec, 5, 3)
    second.load_state_dict(first.state_dict())
    features = torch.randn(4, 5)
    assert torch.equal(first(features), second(features))
    assert first(features).shape == (4, 3)


def test_standardized_features_have_mean_zero_and_deviation_one() -> None:
    features = torch.randn(50, 4) * 5 + 3
    layer = Standardize(4)
    assert torch.equal(layer(features), features)
    layer.set_statistics(features.mean(0), features.std(0, correction=0))
    assert torch.allclose(layer(features).mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(layer(features).std(0, correction=0), torch.ones(4), atol=1e-5)


def test_cosine_logits_do_not_depend_on_lengths() -> None:
    head = CosineLinear(6, 3)
    features = torch.randn(5, 6)
    expected = 10 * torch.cosine_similarity(features[:, None], head.weight[None], dim=2)
    assert torch.allclose(head(features), expected, atol=1e-5)
    assert torch.allclose(head(7 * features), head(features), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_model_gives_the_same_logits_and_the_run_keeps_its_head(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    spec = HeadSpec(kind, 8, 0.1, True)  # type: ignore[arg-type]
    network = build_network("test_resnet", num_classes=3, weights="none", head=spec, image_size=32).eval()
    assert isinstance(network.head[0], Standardize)
    network.head[0].set_statistics(torch.randn(network.num_features), 1 + torch.rand(network.num_features))
    images = torch.randn(2, 3, 32, 32)
    before = network(images)
    save_bundle(network, ("a", "b", "c"), "multiclass", tmp_path)
    shipped = load_bundle(tmp_path).network
    assert torch.allclose(shipped(images), before, atol=1e-5)
    assert isinstance(shipped.head[0], Standardize) == (kind == "cosine")
    assert isinstance(network.head[0], Standardize)
    assert torch.equal(network(images), before)
    assert network.options["head"]["standardize"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (HeadSpec("cosin"), "'cosine'"),  # type: ignore[arg-type]
        (HeadSpec(dropout=1.0), "head.dropout=1.0"),
        (HeadSpec("mlp", hidden=0), "head.hidden=0"),
    ],
)
def test_head_that_makes_no_sense_is_one_clear_line(spec: HeadSpec, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_head(spec, 4, 2)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
