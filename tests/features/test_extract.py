"""Features: each image passes through a backbone at rest once, and what depends on a change is made anew."""

import copy
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from configured import settings_for
from tiny import tiny_table

from finetune.config.settings.training_groups import Augment
from finetune.data.cache.store import Cache
from finetune.data.datamodule import ImageData
from finetune.data.table import ImageTable, content_digest, object_column
from finetune.errors import ConfigError, RunError
from finetune.features.extract import FeatureSettings, FeatureSource
from finetune.models.adapters import add_lora
from finetune.models.network import Network, build_network
from finetune.runtime.device import DevicePass

AUGMENT = settings_for(Augment, crop_scale=(0.5, 1.0))
CPU = DevicePass(torch.device("cpu"))


def network_of(seed: int = 0, name: str = "test_efficientnet", **options: Any) -> Network:
    torch.manual_seed(seed)
    return build_network(name, num_classes=10, weights="none", image_size=32, **options)


def table_of(count: int = 12) -> ImageTable:
    """Return a checked table whose images are all for training."""
    table = tiny_table(train=count, val=0, test=0)
    contents = [content_digest(table.store.content(path)) for path in table.frame["path"]]
    return replace(table, frame=table.frame.assign(digest=object_column(contents)))


def source_of(
    folder: Path | None,
    network: Network | None = None,
    table: ImageTable | None = None,
    augment: Augment = AUGMENT,
    device_pass: DevicePass = CPU,
    **settings: Any,
) -> FeatureSource:
    network = network or network_of()
    images = ImageData(table or table_of(), network.spec, augment, eval_batch_size=5)
    cache = None if folder is None else Cache(folder / "cache", settings.pop("max_size", 10**9))
    return FeatureSource(network, images, FeatureSettings(cache=cache, **settings), device_pass)


def rows(count: int = 12) -> np.ndarray:
    return np.arange(count)


def computed(source: FeatureSource, count: int = 12, views: int = 1) -> int:
    """Return how many images had to pass through the backbone."""
    source.features(rows(count), views)
    return source.computed


@pytest.mark.parametrize("stored", [True, False])
def test_features_are_those_of_the_backbone_in_eval_mode(tmp_path: Path, stored: bool) -> None:
    source = source_of(tmp_path if stored else None)
    found = source.features(rows()).take(np.array([7, 0, 7, 11]))
    images = torch.cat([batch["image"] for batch in source.images.loader("train", augmented=False)])
    with torch.no_grad():
        expected = source.network.backbone.eval()(images)[[7, 0, 7, 11]]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_network_is_left_in_the_mode_it_was_in(tmp_path: Path) -> None:
    network = network_of()
    network.train()
    computed(source_of(tmp_path, network))
    assert all(module.training for module in network.backbone.modules())


def test_a_second_run_computes_nothing_and_reads_no_image(tmp_path: Path) -> None:
    first = source_of(tmp_path).features(rows())
    table = table_of()
    blind = replace(table, frame=table.frame.assign(path=object_column(["nowhere"] * 12)))
    second = source_of(tmp_path, network_of(), blind)
    assert torch.equal(second.features(rows()).take(rows()), first.take(rows()))
    assert second.computed == 0


def test_ten_images_more_compute_ten(tmp_path: Path) -> None:
    assert computed(source_of(tmp_path, table=table_of(30)), 30) == 30
    assert computed(source_of(tmp_path, table=table_of(40)), 40) == 10


def test_the_same_image_twice_is_computed_once(tmp_path: Path) -> None:
    table = table_of(4)
    twice = replace(table, frame=table.frame.iloc[[0, 1, 1, 2]].reset_index(drop=True))
    source = source_of(tmp_path, table=twice)
    values = source.features(rows(4)).take(rows(4))
    assert source.computed == 3 and torch.equal(values[1], values[2])


def changed_weights() -> Network:
    network = network_of()
    with torch.no_grad():
        next(network.backbone.parameters()).flatten()[0] += 1e-3
    return network


def changed_statistics() -> Network:
    network = network_of()
    with torch.no_grad():
        next(value for name, value in network.backbone.named_buffers() if "running_mean" in name)[0] += 1e-3
    return network


def changed_input(**values: Any) -> Network:
    network = network_of()
    network.spec = replace(network.spec, **values)
    return network


CHANGES = {
    "weights": changed_weights,
    "statistics": changed_statistics,
    "architecture": lambda: network_of(name="test_resnet"),
    "mean": lambda: changed_input(mean=(0.4, 0.5, 0.5)),
    "interpolation": lambda: changed_input(interpolation="bilinear"),
    "crop": lambda: changed_input(crop_pct=0.9),
    "size": lambda: changed_input(height=64, width=64),
}


def with_adapters(seed: int) -> Network:
    network = network_of()
    torch.manual_seed(seed)
    add_lora(network.backbone, rank=2, alpha=4.0)
    return network


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_feature_depends_on_makes_another(tmp_path: Path, change: str) -> None:
    computed(source_of(tmp_path))
    assert computed(source_of(tmp_path, CHANGES[change]())) == 12


@pytest.mark.parametrize("settings", [{"dtype": "float16"}, {"device_pass": replace(CPU, precision="bf16-mixed")}])
def test_precision_and_type_make_another(tmp_path: Path, settings: dict[str, Any]) -> None:
    computed(source_of(tmp_path))
    assert computed(source_of(tmp_path, **settings)) == 12


def another_head() -> Network:
    network = network_of()
    torch.manual_seed(5)
    network.head = build_network("test_efficientnet", num_classes=3, weights="none", image_size=32).head
    return network


@pytest.mark.parametrize("same", [another_head, lambda: network_of(drop_path_rate=0.2), lambda: with_adapters(3)])
def test_what_it_does_not_depend_on_does_not(tmp_path: Path, same: Any) -> None:
    computed(source_of(tmp_path))
    assert computed(source_of(tmp_path, same())) == 0


def test_adapters_that_have_moved_make_another(tmp_path: Path) -> None:
    computed(source_of(tmp_path))
    network = with_adapters(3)
    with torch.no_grad():
        for name, value in network.backbone.named_parameters():
            if name.endswith(".up"):
                value += 0.1
    assert computed(source_of(tmp_path, network)) == 12


def test_another_augmentation_leaves_the_unaugmented_view(tmp_path: Path) -> None:
    assert computed(source_of(tmp_path), views=3) == 36
    other = replace(AUGMENT, vertical_flip=0.5)
    assert computed(source_of(tmp_path, augment=other), views=3) == 24
    assert computed(source_of(tmp_path, augment=replace(AUGMENT, mixup=0.2)), views=3) == 0


def test_a_view_more_computes_one_view(tmp_path: Path) -> None:
    computed(source_of(tmp_path), views=2)
    assert computed(source_of(tmp_path), views=3) == 12


def test_views_differ_and_are_the_same_each_time(tmp_path: Path) -> None:
    first = source_of(tmp_path / "a").features(rows(), 3)
    second = source_of(tmp_path / "b").features(rows(), 3)
    one = [first.take(rows(), np.full(12, view)) for view in range(3)]
    two = [second.take(rows(), np.full(12, view)) for view in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.allclose(one[1], one[2]) and not torch.allclose(one[0], one[1])
    mixed = first.take(rows(), np.arange(12) % 3)
    assert torch.equal(mixed, torch.stack([one[row % 3][row] for row in range(12)]))


@pytest.mark.parametrize("damage", ["tampered", "torn", "gone"])
def test_damaged_features_are_computed_again(tmp_path: Path, damage: str) -> None:
    expected = source_of(tmp_path).features(rows()).take(rows())
    (file,) = (tmp_path / "cache").glob("features/*/*.safetensors")
    content = bytearray(file.read_bytes())
    content[-7] ^= 255
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content if damage == "tampered" else content[:-100])
    again = source_of(tmp_path)
    assert torch.equal(again.features(rows()).take(rows()), expected)
    assert again.computed == 12


def test_half_precision_takes_half_the_disk(tmp_path: Path) -> None:
    full, half = source_of(tmp_path / "full"), source_of(tmp_path / "half", dtype="float16")
    exact, rounded = full.features(rows()).take(rows()), half.features(rows()).take(rows())
    torch.testing.assert_close(exact, rounded, atol=2e-3, rtol=2e-3)
    sizes = [next((tmp_path / name).glob("cache/*/*/*.safetensors")).stat().st_size for name in ("full", "half")]
    saved = sizes[0] - sizes[1]
    assert saved == 12 * full.network.num_features * 2


def test_values_that_half_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path, dtype="float16")
    source.encode = lambda backbone, images: images.mean((2, 3)) * 1e9
    with pytest.raises(RunError, match="features.dtype=float32"):
        source.features(rows())


def test_features_that_do_not_fit_are_refused_before_they_are_computed(tmp_path: Path) -> None:
    source = source_of(tmp_path, max_size=100)
    with pytest.raises(ConfigError, match="cache.max_size"):
        source.features(rows())
    assert source.computed == 0


def test_a_full_cache_loses_what_was_unused_for_longest(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    computed(source)
    computed(source_of(tmp_path, network_of(1), max_size=20000))
    (left,) = Cache(tmp_path / "cache", 10**9).infos()
    assert left.description["weights"] == source_of(tmp_path, network_of(1)).identity["weights"]


def compute_in_process(folder: Path, number: int) -> None:
    torch.set_num_threads(1)
    source = source_of(folder)
    source.features(rows())
    (folder / f"{number}.json").write_text(json.dumps(source.computed))


def test_of_several_processes_one_computes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=compute_in_process, args=(tmp_path, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert sorted(json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2)) == [0, 12]


def test_a_batch_of_views_takes_each_in_its_own(tmp_path: Path) -> None:
    features = source_of(tmp_path).features(rows(), 2)
    pair = features.take(np.array([3, 3]), np.array([0, 1]))
    assert not torch.equal(pair[0], pair[1])


def test_large_features_are_written_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.features.extract.FILE_BYTES", 1)
    source = source_of(tmp_path)
    values = source.features(rows()).take(rows())
    assert len(list((tmp_path / "cache").glob("features/*/*.safetensors"))) == 3
    assert torch.equal(values, copy.copy(source_of(None).features(rows()).take(rows())))
