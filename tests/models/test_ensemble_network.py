"""Networks that are joined say what their members say together, and are stored as one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from members import count_members
from scipy.special import expit, logit, softmax

from finetune.errors import ConfigError
from finetune.evaluation.predictions import to_probabilities
from finetune.models.bundle import load_bundle, save_bundle
from finetune.models.ensemble_network import JoinedBackbone, Member, combine, join_networks
from finetune.models.heads.modules import HeadSpec
from finetune.models.network import Network, build_network
from finetune.uncertainty.scaling import Scaling

WEIGHTS = torch.tensor([0.5, 0.3, 0.2])


def network(seed: int, name: str = "test_resnet", **options: Any) -> Network:
    torch.manual_seed(seed)
    made = build_network(name, num_classes=3, weights="none", head=HeadSpec(standardize=seed == 1), **options)
    torch.nn.init.normal_(made.head[-1].weight, std=0.5)
    return made.eval()


def images(size: int = 160) -> torch.Tensor:
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(3))


def test_rules_are_means_of_probabilities_and_logarithms_and_shares_of_votes() -> None:
    scores = torch.randn(3, 5, 4, dtype=torch.float64).log_softmax(-1)
    p, weights = scores.exp().numpy(), WEIGHTS.double()
    mean, product, vote = (
        softmax(combine(scores, rule, weights, multilabel=False).numpy(), axis=1) for rule in ("mean", "logits", "vote")
    )
    assert np.allclose(mean, np.einsum("m,mbk->bk", weights, p))
    powers = np.prod(p ** weights.numpy()[:, None, None], axis=0)
    assert np.allclose(product, powers / powers.sum(1, keepdims=True))
    shares = sum(weight * np.eye(4)[part.argmax(1)] for weight, part in zip(weights.numpy(), p, strict=True))
    assert np.allclose(vote, (3 * shares + 0.25) / 4)


def test_rules_for_several_labels_work_on_each_label_by_itself() -> None:
    scores = torch.randn(3, 5, 4, dtype=torch.float64)
    weights = WEIGHTS.double()
    p = expit(scores.numpy())
    found = {rule: combine(scores, rule, weights, multilabel=True).numpy() for rule in ("mean", "logits", "vote")}  # type: ignore[arg-type]
    assert np.allclose(expit(found["mean"]), np.einsum("m,mbk->bk", weights, p))
    assert np.allclose(found["logits"], np.einsum("m,mbk->bk", weights, logit(p)))
    votes = np.einsum("m,mbk->bk", weights, (p > 0.5).astype(float))
    assert np.allclose(expit(found["vote"]), (3 * votes + 0.5) / 4)


def test_members_of_one_backbone_share_it_and_a_stored_ensemble_says_the_same(tmp_path: Path) -> None:
    first = network(0)
    second = network(1)
    second.backbone.load_state_dict(first.backbone.state_dict())
    second.head[0].set_statistics(torch.randn(second.num_features), torch.rand(second.num_features) + 0.5)
    third = network(2)
    scalings = [Scaling("temperature", (0.5,)), Scaling(), Scaling("vector", (2.0, 1.0, 0.5), (0.1, 0.0, -0.1))]
    members = [Member(each, scaling) for each, scaling in zip((first, second, third), scalings, strict=True)]
    joined = join_networks(members, "mean", "multiclass")
    save_bundle(joined, ("a", "b", "c"), "multiclass", tmp_path)
    loaded = load_bundle(tmp_path).network
    assert isinstance(loaded.backbone, JoinedBackbone) and len(loaded.backbone.backbones) == 2
    assert count_members(loaded) == 3 and loaded.num_features == 2 * first.num_features
    with torch.no_grad():
        each = [
            to_probabilities(scaling.apply(member.network(images()).numpy(), multilabel=False), "multiclass")
            for member, scaling in zip(members, scalings, strict=True)
        ]
        said = to_probabilities(loaded(images()).numpy(), "multiclass")
    assert np.allclose(said, np.mean(each, axis=0), atol=1e-5)


def test_a_backbone_that_all_share_is_left_as_it_is() -> None:
    first = network(0)
    assert join_networks([Member(first), Member(first)], "mean", "multiclass").backbone is first.backbone


def test_each_backbone_sees_images_as_it_wants_them() -> None:
    one = network(0, mean=[0.5] * 3, std=[0.5] * 3)
    two = network(2, mean=[0.1, 0.2, 0.3], std=[0.9, 0.8, 0.7])
    joined = join_networks([Member(one), Member(two)], "mean", "multiclass")
    pixels = torch.rand(2, 3, 160, 160)
    stats = torch.tensor([two.spec.mean, two.spec.std])[:, None, :, None, None]
    with torch.no_grad():
        both = joined.backbone((pixels - 0.5) / 0.5)
        alone = two.backbone((pixels - stats[0]) / stats[1])
    assert torch.allclose(both[:, one.num_features :], alone, atol=1e-4)
    small = network(2, "test_vit", image_size=64)
    mixed = join_networks([Member(one), Member(small)], "mean", "multiclass")
    assert mixed(pixels).shape == (2, 3)


def test_networks_of_sequences_are_joined_and_stored_too(tmp_path: Path) -> None:
    members = []
    for seed, kind in enumerate(("gru", "mean_pool")):
        torch.manual_seed(seed)
        head = HeadSpec(kind, 8)  # type: ignore[arg-type]
        made = build_network("test_resnet", num_classes=3, weights="none", head=head, image_size=32, frames=4).eval()
        torch.nn.init.normal_(made.head[-1].weight)
        members.append(made)
    save_bundle(
        join_networks([Member(each) for each in members], "mean", "multiclass"), ("a", "b", "c"), "multiclass", tmp_path
    )
    loaded = load_bundle(tmp_path).network
    assert loaded.frames == 4
    given = images(32), torch.tensor([3, 1])
    with torch.no_grad():
        each = [to_probabilities(member(*given).numpy(), "multiclass") for member in members]
        assert np.allclose(to_probabilities(loaded(*given).numpy(), "multiclass"), np.mean(each, axis=0), atol=1e-5)
    with pytest.raises(ConfigError, match="frames of a sequence"):
        join_networks([Member(members[0]), Member(network(0))], "mean", "multiclass")


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one member"):
        join_networks([], "mean", "multiclass")
    with pytest.raises(ConfigError, match="agree in labels and channels"):
        join_networks([Member(network(0)), Member(network(1, in_chans=1))], "mean", "multiclass")
