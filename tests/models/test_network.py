"""Networks from timm: shapes, inputs, heads, weights, and clear errors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from sklearn.datasets import load_sample_image

from finetune.data.transforms import eval_transform
from finetune.errors import ConfigError
from finetune.models.heads.modules import HeadSpec
from finetune.models.layers import layers
from finetune.models.network import build_network, shape_of_features
from finetune.models.weights import bundled_state

NAMES = {
    "test_resnet": 32, "test_efficientnet": 32, "test_vit": 32, "test_convnext": 32, "test_byobnet": 32, "resnet18": 32,
    "mobilenetv3_small_050": 32, "convnext_atto": 32, "vit_tiny_patch16_224": 32, "deit_tiny_distilled_patch16_224": 32,
    "vgg11": 32, "regnetx_002": 32, "densenet121": 32, "efficientvit_b0": 32,
    "swin_tiny_patch4_window7_224": 224, "levit_128s": 224,
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), NAMES.items())
def test_any_timm_model_becomes_a_network(name: str, size: int) -> None:
    network = build_network(name, num_classes=5, weights="none", image_size=size).eval()
    images = torch.zeros(2, 3, size, size)
    assert network(images).shape == (2, 5)
    assert network.backbone(images).shape == (2, network.num_features)
    assert (network.spec.height, network.spec.width) == (size, size)


@pytest.mark.parametrize(("name", "size"), NAMES.items())
def test_features_are_counted_without_computing_them(name: str, size: int) -> None:
    backbone = build_network(name, num_classes=5, weights="none", image_size=size).backbone.eval()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    found = shape_of_features(backbone, torch.zeros(1, 3, size, size))
    assert found is not None and found.is_meta
    assert found.shape == backbone(torch.zeros(1, 3, size, size)).shape
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_a_model_that_uses_layers_in_several_places_keeps_their_weights() -> None:
    network = build_network("coat_tiny", num_classes=2, weights="none", image_size=32).eval()
    assert not [name for name, value in network.named_parameters() if value.is_meta]
    assert network.num_features == network.backbone.num_features
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


@pytest.mark.parametrize(("name", "size"), NAMES.items())
def test_every_parameter_in_one_layer(name: str, size: int) -> None:
    network = build_network(name, num_classes=5, weights="none", image_size=size)
    found = layers(network)
    listed = [parameter for layer in found for parameter in layer.parameters]
    assert sorted(listed) == sorted(dict(network.named_parameters()))
    assert found[-1].name == "head"
    assert len(found) > 3
    stem = next(iter(dict(network.named_parameters())))
    assert stem in found[0].parameters or "token" in stem or "pos_embed" in stem or len(found) > 3


def test_bundled_weights_match_in_number_and_shape() -> None:
    state = bundled_state("tf_efficientnet_lite0", {})
    own = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert len(state) == 247
    assert all(own[key].shape == value.shape for key, value in state.items())


@pytest.mark.parametrize(("photo", "expected"), [("flower.jpg", 985), ("china.jpg", 832)])
def test_bundled_weights_classify_photos(photo: str, expected: int) -> None:
    # ImageNet-1k: 985 daisy stands for flowers; 832 stupa for the Chinese temple
    from PIL import Image

    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(bundled_state("tf_efficientnet_lite0", {}), strict=False)
    spec = build_network("tf_efficientnet_lite0", num_classes=2, weights="bundled").spec
    assert (spec.mean, spec.std, spec.height, spec.interpolation, spec.crop_pct) == (
        (0.5,) * 3,
        (0.5,) * 3,
        224,
        "bicubic",
        0.875,
    )
    image = eval_transform(spec)(Image.fromarray(load_sample_image(photo)))[None]
    with torch.no_grad():
        best = model.eval()(image)[0].topk(20).indices.tolist()
    assert expected in best


@pytest.mark.parametrize("channels", [1, 4])
def test_bundled_weights_take_other_channels(channels: int) -> None:
    network = build_network("tf_efficientnet_lite0", num_classes=2, weights="bundled", in_chans=channels, image_size=32)
    assert network(torch.zeros(2, channels, 32, 32)).shape == (2, 2)
    expected = timm.models.adapt_input_conv(channels, bundled_state("tf_efficientnet_lite0", {})["conv_stem.weight"])
    assert torch.equal(network.backbone.conv_stem.weight, expected)
    assert len(network.spec.mean) == channels


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_local_file_is_loaded_whatever_wrapped_it(tmp_path: Path, suffix: str, prefix: str) -> None:
    source = timm.create_model("test_resnet", num_classes=7)
    state = {prefix + key: value.contiguous() for key, value in source.state_dict().items()}
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": state}, path)
    else:
        safetensors.torch.save_file(state, path)
    network = build_network("test_resnet", num_classes=3, weights=str(path), image_size=32)
    own = network.backbone.state_dict()
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in own.items())


def test_position_embeddings_of_another_size_are_resampled(tmp_path: Path) -> None:
    source = timm.create_model("vit_tiny_patch16_224", img_size=64)
    path = tmp_path / "vit.safetensors"
    safetensors.torch.save_file({key: value.contiguous() for key, value in source.state_dict().items()}, path)
    network = build_network("vit_tiny_patch16_224", num_classes=3, weights=str(path), image_size=32)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(
        {k: v.contiguous() for k, v in timm.create_model("test_vit").state_dict().items()}, path
    )
    with pytest.raises(ConfigError, match="is not for test_resnet"):
        build_network("test_resnet", num_classes=3, weights=str(path))


def test_code_in_a_weights_file_is_never_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "harmed"),))

    path = tmp_path / "harm.pth"
    torch.save({"state_dict": Harm()}, path)
    with pytest.raises(ConfigError, match="without running code"):
        build_network("test_resnet", num_classes=3, weights=str(path))
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("resnet5O", {}, "'resnet50'"),
        ("resnet50.a1_in1", {}, "a1_in1k"),
        ("test_resnet", {"weights": "bundld"}, "'bundled'"),
        ("test_resnet", {"weights": "bundled"}, "tf_efficientnet_lite0"),
        ("test_resnet", {"weights": "timm"}, "local file"),
        ("vgg11", {"drop_path_rate": 0.1}, "drop_path_rate"),
        ("test_resnet", {"interpolation": "bicubc"}, "'bicubic'"),
        ("test_resnet", {"crop_pct": 2.0}, "crop_pct"),
        ("test_resnet", {"crop_mode": "squish"}, "'squash'"),
        ("test_resnet", {"mean": [0.5, 0.5]}, "2 values for 3 channels"),
        ("test_resnet", {"head": HeadSpec(kind="mpl")}, "'mlp'"),  # type: ignore[arg-type]
        ("vit_tiny_patch16_224", {"image_size": 30}, "image_size"),
    ],
)
def test_what_a_model_cannot_do_is_one_clear_line(name: str, options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_network(name, **{"num_classes": 3, "weights": "none", **options})  # type: ignore[arg-type]
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("center", 0.95)),
        ({"crop_pct": 1.0}, ("center", 1.0)),
        ({"crop_mode": "squash"}, ("squash", 1.0)),
        ({"crop_mode": "border"}, ("border", 1.0)),
        ({"crop_mode": "border", "crop_pct": 0.9}, ("border", 0.9)),
        ({"crop_mode": "center"}, ("center", 0.95)),
    ],
)
def test_whole_images_are_whole_unless_a_share_is_asked_for(
    options: dict[str, Any], expected: tuple[str, float]
) -> None:
    spec = build_network("test_resnet", num_classes=2, weights="none", **options).spec
    assert (spec.crop_mode, spec.crop_pct) == expected


def test_head_starts_near_uniform_predictions() -> None:
    torch.manual_seed(0)
    for head in (HeadSpec(), HeadSpec(kind="mlp", hidden=8, dropout=0.5)):
        network = build_network("test_resnet", num_classes=4, weights="none", head=head, image_size=32).eval()
        probabilities = network(torch.randn(4, 3, 32, 32)).softmax(1)
        assert np.allclose(probabilities.detach(), 0.25, atol=0.1)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    images = torch.randn(2, 3, 32, 32)
    gradients = []
    for on in (False, True):
        torch.manual_seed(0)
        network = build_network("test_vit", num_classes=2, weights="none", image_size=32, grad_checkpointing=on)
        network(images).sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True) if a is not None and b is not None)
