"""Inference drops padding, keeps the order of rows and leaves the network as it was."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from finetune.errors import ConfigError, RunError
from finetune.evaluation.inference import Predictor
from finetune.runtime.device import DevicePass

torch.set_num_threads(1)
CPU = DevicePass(torch.device("cpu"))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3)


def make_batches(images, order, size, padding=0):
    rows = torch.tensor([*order, *[0] * padding])
    valid = torch.arange(len(rows)) < len(order)
    for chunk in torch.arange(len(rows)).split(size):
        held = rows[chunk]
        yield {"image": images[held], "target": held % 3, "row": held, "valid": valid[chunk]}


def test_padding_is_dropped_and_rows_are_in_order(network):
    images = torch.randn(21, 3, 32, 32)
    order = torch.randperm(21).tolist()
    outputs = Predictor(network, CPU).over([make_batches(images, order, size=4, padding=3)])
    np.testing.assert_array_equal(outputs.rows, np.arange(21))
    np.testing.assert_array_equal(outputs.targets, np.arange(21) % 3)
    with torch.no_grad():
        expected = network.eval()(images)
    np.testing.assert_allclose(outputs.logits[0], expected.numpy(), atol=1e-5)


def test_batch_size_does_not_change_what_is_predicted(network):
    images = torch.randn(10, 3, 32, 32)
    one, many = (Predictor(network, CPU).over([make_batches(images, range(10), size=n)]).logits for n in (1, 10))
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_modes_and_batchnorm_statistics_are_left_alone(network):
    network.train()
    network.bn1.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Predictor(network, CPU).over([make_batches(torch.randn(4, 3, 32, 32), range(4), size=2)])
    assert network.training
    assert not network.bn1.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_bfloat16_stays_near_full_precision(network):
    images = torch.randn(4, 3, 32, 32)
    full, half = (
        Predictor(network, replace(CPU, precision=precision)).over([make_batches(images, range(4), size=4)]).logits
        for precision in ("32-true", "bf16-mixed")
    )
    assert half.dtype == np.float32
    assert not np.array_equal(full, half)
    np.testing.assert_allclose(half, full, atol=0.1)


def test_unknown_precision_and_no_images_are_named(network):
    with pytest.raises(ConfigError, match=r"bf16_mixed is not known.*Did you mean 'bf16-mixed'"):
        Predictor(network, replace(CPU, precision="bf16_mixed")).logits({"image": torch.randn(1, 3, 32, 32)})
    with pytest.raises(RunError, match="no images"):
        Predictor(network, CPU).over([[]])
