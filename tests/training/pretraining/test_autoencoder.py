"""Hidden patches reach no encoder, the loss is its formula, and only plain vision transformers are taken."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from configured import settings_for
from torch.nn import functional

from finetune.config.settings.training_groups import PretrainSettings
from finetune.errors import ConfigError
from finetune.training.pretraining.autoencoder import MaskedAutoencoder, draw_noise, make_mask, patchify, unpatchify
from finetune.training.pretraining.encoder import encode_visible, freeze_pooling, plain_vit

SMALL = settings_for(PretrainSettings, decoder_width=64, decoder_depth=1)
NAMES = ("test_vit", "test_vit2", "test_vit3")  # without and with registers, layer scale and other poolings


def encoder_of(name: str) -> Any:
    """Return a transformer for images of 64 pixels, in eval mode."""
    torch.manual_seed(0)
    return plain_vit(timm.create_model(name, num_classes=0, img_size=64).eval(), name)


def images_of(number: int = 2) -> torch.Tensor:
    """Return images (B, 3, 64, 64)."""
    return torch.randn(number, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("patches", "ratio", "seen"), [(196, 0.75, 49), (16, 0.75, 4), (16, 0.99, 1), (16, 0.01, 15)])
def test_a_mask_hides_the_stated_share_and_can_be_undone(patches: int, ratio: float, seen: int) -> None:
    mask = make_mask(torch.rand(5, patches), ratio)
    assert mask.visible.shape == (5, seen) and mask.hidden.sum(dim=1).tolist() == [patches - seen] * 5
    for visible, restore, hidden in zip(*mask, strict=True):
        assert sorted(visible.tolist()) == np.flatnonzero(hidden == 0).tolist()
        assert sorted(restore.tolist()) == list(range(patches))
        assert restore[visible].tolist() == list(range(seen))  # the visible ones come first, in their order


def test_masks_are_a_function_of_seed_epoch_and_image_alone() -> None:
    noise = draw_noise(np.array([3, 7, 9]), 16, seed=1, epoch=2)
    assert torch.equal(noise[1], draw_noise(np.array([7]), 16, seed=1, epoch=2)[0])
    for seed, epoch in ((2, 2), (1, 3)):
        assert not torch.equal(noise[1], draw_noise(np.array([7]), 16, seed=seed, epoch=epoch)[0])


def test_patches_are_cut_as_a_convolution_reads_them_and_put_together_again() -> None:
    images = images_of()
    patches = patchify(images, (16, 16))
    columns = functional.unfold(images, 16, stride=16).transpose(1, 2)  # channels first
    expected = columns.reshape(2, 16, 3, 256).transpose(2, 3).reshape(2, 16, 768)
    assert torch.equal(patches, expected)
    assert torch.equal(unpatchify(patches, (16, 16), (4, 4)), images)


@pytest.mark.parametrize("name", NAMES)
def test_with_all_patches_the_encoder_is_timms(name: str) -> None:
    encoder, images = encoder_of(name), images_of()
    everything = torch.arange(16).expand(2, -1)
    with torch.no_grad():
        torch.testing.assert_close(encode_visible(encoder, images, everything), encoder.forward_features(images))


@pytest.mark.parametrize("name", NAMES)
def test_only_visible_patches_reach_the_encoder(name: str) -> None:
    encoder, images = encoder_of(name), images_of().requires_grad_()
    mask = make_mask(torch.rand(2, 16), 0.75)
    counts: list[int] = []
    encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].shape[1]))
    features = encode_visible(encoder, images, mask.visible)
    assert counts == [encoder.num_prefix_tokens + 4]
    (gradient,) = torch.autograd.grad(features.square().sum(), images)
    reached = patchify(gradient, (16, 16)).abs().sum(dim=2) > 0
    assert torch.equal(reached, mask.hidden == 0)
    changed = unpatchify(patchify(images.detach(), (16, 16)) + 100 * mask.hidden[:, :, None], (16, 16), (4, 4))
    with torch.no_grad():
        assert torch.equal(encode_visible(encoder, changed, mask.visible), features)


def test_the_loss_is_the_error_of_hidden_patches_that_are_normalised() -> None:
    model = MaskedAutoencoder(encoder_of("test_vit"), 3, SMALL).eval()
    images, noise = images_of(3), torch.rand(3, 16)
    with torch.no_grad():
        losses, rebuilt, mask = model(images, noise)
    for image in range(3):
        errors = []
        for number in range(16):
            top, left = 16 * (number // 4), 16 * (number % 4)
            pixels = images[image, :, top : top + 16, left : left + 16].permute(1, 2, 0).flatten().double().numpy()
            target = (pixels - pixels.mean()) / np.sqrt(pixels.var(ddof=1) + 1e-6)
            if mask.hidden[image, number]:
                errors.append(((rebuilt[image, number].numpy() - target) ** 2).mean())
        assert len(errors) == 12 and losses[image].item() == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_that_moves_has_a_gradient(name: str) -> None:
    encoder = encoder_of(name)
    freeze_pooling(encoder)
    model = MaskedAutoencoder(encoder, 3, SMALL)
    model(images_of(), torch.rand(2, 16))[0].mean().backward()
    without = [key for key, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert without == []  # several processes would wait for it for ever


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit_relpos", "test_convnext"])
def test_other_networks_are_refused_with_what_to_use(name: str) -> None:
    with pytest.raises(ConfigError, match=f"model.name={name} is a .* Use one such as vit_small_patch16_224"):
        plain_vit(timm.create_model(name, num_classes=0), name)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epochs": 0}, "pretrain.epochs=0"),
        ({"mask_ratio": 1.0}, "pretrain.mask_ratio=1.0"),
        ({"decoder_width": 100}, "such as 96"),
        ({"decoder_depth": 0}, "pretrain.decoder_depth=0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        settings_for(PretrainSettings, **changes)
