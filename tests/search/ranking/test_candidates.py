"""Candidates: what names and patterns mean, and where weights are looked for, in which order."""

from pathlib import Path

import pytest
import timm

from finetune.errors import ConfigError
from finetune.search.ranking.candidates import (
    DEFAULTS,
    BackboneCandidate,
    UnavailableError,
    choose_names,
    downloaded,
    hub_is_reachable,
    locate,
)


def unreachable() -> bool:
    return False


def never_asked() -> bool:
    raise AssertionError("the network was asked for what is on this machine")


def test_usual_names_are_timms_and_have_weights() -> None:
    assert all(timm.is_model_pretrained(name) for name in DEFAULTS)
    assert choose_names(None, None, pretrained=True) == list(DEFAULTS)


def test_weights_in_a_folder_are_compared_without_being_named(tmp_path: Path) -> None:
    for name in ("resnet18.safetensors", "test_vit.r160_in1k.pth", "notes.txt", "other.safetensors"):
        (tmp_path / name).touch()
    assert choose_names(None, tmp_path, pretrained=True)[len(DEFAULTS) :] == ["resnet18", "test_vit.r160_in1k"]


def test_patterns_mean_each_architecture_once_and_names_themselves() -> None:
    found = choose_names(["test_vit*", "test_vit", "resnet50.a1_in1k"], None, pretrained=True)
    assert found == [*filter(timm.is_model_pretrained, timm.list_models("test_vit*")), "resnet50.a1_in1k"]
    assert choose_names("resnet50.a*_in1k", None, pretrained=True) == timm.list_pretrained("resnet50.a*_in1k")


def test_pattern_leaves_out_models_without_weights_unless_random_ones_will_do() -> None:
    every = choose_names("vit_*", None, pretrained=False)
    known = choose_names("vit_*", None, pretrained=True)
    assert set(known) < set(every) and all(timm.is_model_pretrained(name) for name in known)


@pytest.mark.parametrize(("models", "message"), [("resnet5O", "'resnet50'"), ("resnt*", "means no model")])
def test_name_that_means_nothing_is_an_error(models: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_names(models, None, pretrained=True)


def test_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rank\.weights_dir=.*is not a folder"):
        choose_names(None, tmp_path / "gone", pretrained=True)


def test_what_is_on_this_machine_is_taken_before_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own := tmp_path / "own").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    kept = tmp_path / "torch" / "hub" / "checkpoints" / Path(timm.get_pretrained_cfg("resnet18.tv_in1k").url).name
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert downloaded("resnet18.tv_in1k") == kept
    found = locate("resnet18.tv_in1k", "download", own, never_asked)
    assert found == BackboneCandidate("resnet18.tv_in1k", str(kept), "timm")
    file = own / "resnet18.pth"
    file.touch()
    assert locate("resnet18.tv_in1k", "download", own, never_asked) == BackboneCandidate(
        "resnet18.tv_in1k", str(file), str(file)
    )
    bundled = locate("tf_efficientnet_lite0", "local", own, never_asked)
    assert (bundled.weights, bundled.typed) == ("bundled", "bundled")
    assert locate("resnet18", "none", own, never_asked).weights == "none"


def test_hub_files_that_were_downloaded_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--timm--test_resnet.r160_in1k"
    (place / "snapshots" / "abc").mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots" / "abc" / "model.safetensors").touch()
    assert downloaded("test_resnet.r160_in1k") == place / "snapshots" / "abc" / "model.safetensors"
    assert downloaded("test_vit.r160_in1k") is None


@pytest.mark.parametrize(
    ("name", "policy", "reason"),
    [
        ("test_vit", "local", "rank.weights=download fetches them"),
        ("test_vit", "download", "there is no network"),
        ("vit_base_patch16_xp_224", "download", "timm knows no weights"),
    ],
)
def test_weights_that_are_not_to_be_had_have_a_reason(name: str, policy: str, reason: str) -> None:
    with pytest.raises(UnavailableError, match=reason):
        locate(name, policy, None, unreachable)  # type: ignore[arg-type]


def test_offline_hub_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://192.0.2.1")
    hub_is_reachable.cache_clear()
    assert not hub_is_reachable()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    hub_is_reachable.cache_clear()
    assert not hub_is_reachable()
    hub_is_reachable.cache_clear()
