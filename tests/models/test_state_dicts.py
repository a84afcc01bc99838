"""State dicts: a model's tensors are found whatever wraps them, or what was found instead is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from finetune.errors import ConfigError
from finetune.models.bundle import save_bundle
from finetune.models.network import Network, build_network
from finetune.models.state_dicts import find_weights, flatten_tensors

WORDS = ("module", "model", "backbone", "_orig_mod", "net", "encoder", "timm_model", "network", "my_own")
CONTAINERS = (None, "state_dict", "state_dict_ema", "model_state_dict", "model", "ema", "weights")
SOURCE = timm.create_model("test_resnet", num_classes=7)
STATE = {name: value.contiguous() for name, value in SOURCE.state_dict().items()}
OWN = list(timm.create_model("test_resnet", num_classes=0).state_dict())


def loaded(content: Any, path: Path, **options: Any) -> Network:
    torch.save(content, path / "weights.pth")
    return build_network("test_resnet", num_classes=3, weights=str(path / "weights.pth"), image_size=32, **options)


def is_source(network: Network, state: dict[str, Tensor] = STATE) -> bool:
    return all(torch.equal(value, state[name]) for name, value in network.backbone.state_dict().items())


@given(st.lists(st.sampled_from(WORDS), max_size=4), st.sampled_from(CONTAINERS))
def test_prefixes_in_any_order_and_container_are_found(words: list[str], container: str | None) -> None:
    named = {".".join([*words, name]): value for name, value in STATE.items()}
    content = named if container is None else {container: named, "epoch": 3, "optimizer": {"state": {0: STATE}}}
    found = find_weights(flatten_tensors(content), OWN, "file", use_ema=True)
    assert all(torch.equal(found.tensors[name], STATE[name]) for name in OWN) and not found.others


def test_wrappers_inside_a_model_do_not_hide_its_names(tmp_path: Path) -> None:
    state = {name.replace("layer1.", "layer1._orig_mod.", 1): value for name, value in STATE.items()}
    assert is_source(loaded({"state_dict": state}, tmp_path))


def test_a_classifier_and_losses_of_others_stay_out_and_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {f"model.encoder.{name}": value for name, value in STATE.items()} | {"model.head.weight": torch.zeros(2)}
    with caplog.at_level("INFO"):
        assert is_source(loaded({"state_dict": state}, tmp_path))
    assert "state_dict.model.head.weight" in caplog.text and "state_dict.model.encoder." in caplog.text


AVERAGE = {name: value + 1 if value.is_floating_point() else value for name, value in STATE.items()}


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": STATE, "state_dict_ema": AVERAGE},
        {"model": STATE, "model_ema": {f"module.{name}": value for name, value in AVERAGE.items()}},
        {"state_dict": {f"model.{k}": v for k, v in STATE.items()} | {f"ema_model.{k}": v for k, v in AVERAGE.items()}},
        {"student": STATE, "teacher": AVERAGE},
    ],
)
@pytest.mark.parametrize("use_ema", [True, False])
def test_of_raw_and_averaged_weights_a_setting_chooses_and_it_is_said(
    content: dict[str, Any], use_ema: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        network = loaded(content, tmp_path, use_ema=use_ema)
    assert is_source(network, AVERAGE if use_ema else STATE)
    assert "moving average (EMA)" in caplog.text
    assert f"model.use_ema={'false' if use_ema else 'true'} takes the other" in caplog.text


def test_the_only_weights_are_taken_whatever_their_kind(tmp_path: Path) -> None:
    assert is_source(loaded({"state_dict_ema": AVERAGE}, tmp_path, use_ema=False), AVERAGE)
    assert is_source(loaded({"state_dict": STATE}, tmp_path, use_ema=True))


def test_the_same_weights_twice_are_one_set_and_others_are_refused(tmp_path: Path) -> None:
    assert is_source(loaded({"one": STATE, "two": dict(STATE)}, tmp_path))
    with pytest.raises(ConfigError, match=r"several sets of weights that fit, below 'one\.', 'two\.'"):
        loaded({"one": STATE, "two": AVERAGE}, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name: f"model.{name}" if "layer4" not in name else f"lost.{name}", r"lacks .* below 'model\.'"),
        (lambda name: f"blocks.{name.replace('.', '/')}", r"lacks .* It holds .* tensors such as blocks\."),
    ],
)
def test_a_refusal_names_what_was_found(change: Callable[[str], str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        loaded({change(name): value for name, value in STATE.items()}, tmp_path)
    assert "\n" not in str(caught.value)


def test_names_that_timm_translates_are_found_in_their_container(tmp_path: Path) -> None:
    """Weights of the authors of ConvNeXt, which have names of their own."""
    model = timm.create_model("test_convnext", num_classes=0)
    own = model.state_dict()
    state = {
        name.replace("stem.", "downsample_layers.0.").replace(".blocks.", ".").replace("conv_dw", "dwconv")
        .replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2").replace("head.norm", "norm")
        .replace("stages.1.downsample.", "downsample_layers.1.").replace("stages.2.downsample.", "downsample_layers.2.")
        .replace("stages.3.downsample.", "downsample_layers.3."): value
        for name, value in own.items()
    }  # fmt: skip
    torch.save({"model": state}, tmp_path / "w.pth")
    network = build_network("test_convnext", num_classes=2, weights=str(tmp_path / "w.pth"))
    assert all(torch.equal(value, own[name]) for name, value in network.backbone.state_dict().items())


def test_a_run_s_own_weights_checkpoint_and_folder_are_started_from(tmp_path: Path) -> None:
    network = build_network("test_resnet", num_classes=3, weights="none", image_size=32)
    own = network.backbone.state_dict()
    save_bundle(network, ("a", "b", "c"), "multiclass", tmp_path / "run" / "model")
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "optimizer_states": [{"state": {}}], "epoch": 2}, tmp_path / "best.ckpt")
    for place in ("run", "run/model", "run/model/weights.safetensors", "best.ckpt"):
        started = build_network("test_resnet", num_classes=2, weights=str(tmp_path / place), image_size=32)
        assert is_source(started, own), place


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nor a run with a model"):
        build_network("test_resnet", num_classes=2, weights=str(tmp_path))


def test_backbones_of_an_ensemble_are_several_sets(tmp_path: Path) -> None:
    both = nn.ModuleDict({"one": SOURCE, "two": timm.create_model("test_resnet", num_classes=7)})
    safetensors.torch.save_file({k: v.contiguous() for k, v in both.state_dict().items()}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="several sets of weights"):
        build_network("test_resnet", num_classes=3, weights=str(tmp_path / "w.safetensors"), image_size=32)
