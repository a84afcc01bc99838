"""Mixup and CutMix: targets are mixed in the share in which the images are."""

import pytest
import torch
from configured import settings_for
from torch.nn import functional

from finetune.config.settings.training_groups import Augment
from finetune.errors import ConfigError
from finetune.training.losses import CrossEntropy
from finetune.training.mixing import FeatureMixing, MixedBatch, build_mixing

CLASSES = 5


def make_batch(size: int = 6, task: str = "multiclass") -> MixedBatch:
    """Return a batch whose image number i has the value i in each pixel."""
    image = torch.arange(float(size))[:, None, None, None].expand(size, 3, 16, 16).clone()
    target = torch.arange(size) % CLASSES
    if task == "multilabel":
        target = torch.stack([target == 0, target > 1, target > 2, target < 4, target == 3], dim=1).float()
    return {"image": image, "target": target, "row": torch.arange(size), "valid": torch.ones(size, dtype=torch.bool)}


def mix(batch: MixedBatch, seed: int = 0, task: str = "multiclass", **alphas: float) -> MixedBatch:
    """Return the batch mixed under a seed."""
    mixing = build_mixing(settings_for(Augment, **alphas), num_classes=CLASSES, task=task)
    assert mixing is not None
    torch.manual_seed(seed)
    return mixing(batch)


@pytest.mark.parametrize(
    "augment", [settings_for(Augment), settings_for(Augment, enabled=False, mixup=0.2, cutmix=1.0)]
)
def test_nothing_is_mixed_unless_asked_for(augment: Augment) -> None:
    assert build_mixing(augment, num_classes=CLASSES, task="multiclass") is None


@pytest.mark.parametrize("alphas", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
@pytest.mark.parametrize("size", [2, 5, 6])
def test_targets_are_probabilities_for_any_batch_size(alphas: dict[str, float], size: int) -> None:
    mixed = mix(make_batch(size), **alphas)
    assert mixed["target"].shape == (size, CLASSES)
    assert torch.allclose(mixed["target"].sum(dim=1), torch.ones(size))
    assert (mixed["target"] >= 0).all()


@pytest.mark.parametrize("alphas", [{"mixup": 0.4}, {"cutmix": 1.0}])
@pytest.mark.parametrize("seed", range(5))
def test_targets_have_the_share_that_the_pixels_have(alphas: dict[str, float], seed: int) -> None:
    batch = make_batch(4)
    mixed = mix(batch, seed, **alphas)
    means = mixed["image"].mean(dim=(1, 2, 3))
    own = torch.arange(4.0)
    partner = own.roll(1)
    share = mixed["target"][own.long(), own.long()]
    assert torch.allclose(means, share * own + (1 - share) * partner, atol=1e-4)
    assert torch.allclose(mixed["target"][own.long(), partner.long()], 1 - share, atol=1e-6)


@pytest.mark.parametrize("alphas", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}])
def test_multilabel_targets_are_mixed_like_the_images(alphas: dict[str, float]) -> None:
    batch = make_batch(5, "multilabel")
    mixed = mix(batch, 3, "multilabel", **alphas)
    own, partner = batch["target"], batch["target"].roll(1, 0)
    both = (own == 1) & (partner == 1)
    neither = (own == 0) & (partner == 0)
    assert torch.allclose(mixed["target"][both], torch.ones(int(both.sum())))
    assert (mixed["target"][neither] == 0).all()
    shares = mixed["target"][(own == 1) & (partner == 0)]
    assert torch.allclose(shares, shares[0].expand_as(shares))


def test_mixing_is_a_function_of_the_seed() -> None:
    alphas = {"mixup": 0.4, "cutmix": 1.0}
    first, again, other = (mix(make_batch(), seed, **alphas) for seed in (7, 7, 8))
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["target"], again["target"])
    assert not torch.equal(first["image"], other["image"])


def test_both_take_turns() -> None:
    constant = [
        bool((mixed["image"].var(dim=(2, 3)) == 0).all())
        for mixed in (mix(make_batch(), seed, mixup=1.0, cutmix=1.0) for seed in range(30))
    ]
    assert any(constant) and not all(constant), "mixup keeps even images even, cutmix does not"


def test_given_batch_is_left_as_it_is_and_other_entries_are_kept() -> None:
    batch = make_batch()
    before = {name: value.clone() for name, value in batch.items()}
    mixed = mix(batch, mixup=1.0)
    assert all(torch.equal(batch[name], before[name]) for name in before)
    assert mixed["row"] is batch["row"]


def test_channels_last_images_stay_channels_last() -> None:
    batch = make_batch()
    batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    for alphas in ({"mixup": 1.0}, {"cutmix": 1.0}):
        assert mix(batch, **alphas)["image"].is_contiguous(memory_format=torch.channels_last)


def test_mixed_targets_train() -> None:
    mixed = mix(make_batch(), cutmix=1.0)
    assert torch.isfinite(CrossEntropy(0.1)(torch.zeros(6, CLASSES), mixed["target"]))


def test_negative_alpha_is_an_error() -> None:
    with pytest.raises(ConfigError, match="augment.cutmix=-1"):
        build_mixing(settings_for(Augment, cutmix=-1), num_classes=2, task="multiclass")


@pytest.mark.parametrize("hard", [True, False])
def test_features_and_targets_are_mixed_by_one_share(hard: bool) -> None:
    features = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 1, 0, 1]) if hard else torch.eye(5, 2)
    torch.manual_seed(0)
    found = FeatureMixing(0.5, 2)({"features": features, "target": target, "row": target})
    one_hot = functional.one_hot(target, 2).float() if hard else target
    torch.manual_seed(0)
    share = torch.distributions.Beta(0.5, 0.5).sample()
    torch.testing.assert_close(found["features"], share * features + (1 - share) * features[[4, 0, 1, 2, 3]])
    torch.testing.assert_close(found["target"], share * one_hot + (1 - share) * one_hot[[4, 0, 1, 2, 3]])
    assert found["row"] is target
