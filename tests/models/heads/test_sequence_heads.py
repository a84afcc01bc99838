"""Heads for sequences of frames: padding changes no answer, and those that read frames in order can tell it."""

from functools import cache

import numpy as np
import pytest
import torch
from configured import settings_for
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn

from finetune.config.settings.training_groups import HeadSettings
from finetune.errors import ConfigError
from finetune.models.heads.modules import SEQUENCE_KINDS, HeadSpec, build_head
from finetune.models.heads.sequence_heads import AttentionPool, Recurrent, mean_of, pad, unpad
from finetune.models.heads.settings import head_settings
from finetune.models.network import build_network

FEATURES, CLASSES = 5, 3
ORDERED = ("gru", "lstm", "tcn")


def head_of(kind: str, **options: object) -> nn.Sequential:
    """Return a head whose answers differ."""
    torch.manual_seed(0)
    head = build_head(HeadSpec(kind, 8, **options), FEATURES, CLASSES).eval()  # type: ignore[arg-type]
    nn.init.normal_(head[-1].weight)  # type: ignore[arg-type]
    return head


def sequences_of(lengths: list[int], seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Return the features of each sequence, and all of them padded."""
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(length, FEATURES, generator=generator) * 3 + 1 for length in lengths]
    return features, pad(torch.cat(features), torch.tensor(lengths))


@pytest.mark.parametrize("kind", SEQUENCE_KINDS)
@settings(max_examples=15)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(1, 3), st.integers(0, 4))
def test_padding_never_changes_an_answer(kind: str, lengths: list[int], layers: int, more: int) -> None:
    head = head_of(kind, layers=layers)
    _, together = sequences_of(lengths)
    alone = torch.cat([head(row[None, :length]) for row, length in zip(together, lengths, strict=True)])
    longer = torch.cat([together, torch.zeros(len(lengths), more, 1 + FEATURES)], 1)
    longer[..., 1:][longer[..., 0] == 0] = 1e6  # what fills up is never looked at
    assert torch.allclose(head(together), alone, atol=1e-5)
    assert torch.allclose(head(longer), alone, atol=1e-5)


def test_padded_sequences_hold_their_frames_and_say_which_steps_have_none() -> None:
    features, padded = sequences_of([2, 4, 1])
    values, present = unpad(padded)
    assert padded.shape == (3, 4, 1 + FEATURES)
    assert present.sum(1).tolist() == [2, 4, 1]
    assert torch.equal(values[present], torch.cat(features))
    assert torch.equal(pad(torch.cat(features), torch.tensor([2, 4, 1])), padded)


def test_mean_pool_is_the_linear_head_on_mean_features() -> None:
    features, padded = sequences_of([3, 1, 6])
    head = head_of("mean_pool")
    means = torch.stack([part.mean(0) for part in features])
    assert torch.allclose(mean_of(padded), means, atol=1e-6)
    assert torch.allclose(head(padded), nn.functional.linear(means, *head[-1].parameters()), atol=1e-5)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_head_reads_what_torch_reads_of_each_sequence_alone(kind: str, bidirectional: bool) -> None:
    features, padded = sequences_of([3, 1, 6, 4])
    torch.manual_seed(0)
    layer = Recurrent(kind, FEATURES, 8, layers=2, bidirectional=bidirectional, dropout=0.0).eval()
    expected = []
    for part in features:
        outputs, _ = layer.network(layer.norm(part)[None])
        ends = [outputs[0, -1, :8], outputs[0, 0, 8:]]
        expected.append(torch.cat(ends) if bidirectional else ends[0])
    assert layer.width == len(expected[0])
    assert torch.allclose(layer(padded), torch.stack(expected), atol=1e-6)


def test_attention_weights_are_the_formula_of_the_paper_and_sum_to_one() -> None:
    features, padded = sequences_of([4, 2])
    torch.manual_seed(0)
    layer = AttentionPool(FEATURES, 8)
    first, _, second = layer.score
    for row, part in enumerate(features):
        scores = torch.tanh(part @ first.weight.T + first.bias) @ second.weight[0]  # type: ignore[operator, union-attr]
        weights = scores.exp() / scores.exp().sum()
        assert torch.allclose(layer.weights(padded)[row, : len(part)], weights, atol=1e-6)
        assert torch.allclose(layer(padded)[row], weights @ part, atol=1e-5)
    assert layer.weights(padded)[1, 2:].tolist() == [0.0, 0.0]


@cache
def movements(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return digits counting up and the very same frames counting down, of unlike lengths, and which is which."""
    bundled, generator = load_digits(), np.random.default_rng(seed)
    pixels = torch.from_numpy(bundled.data / 16).float()
    of_digit = [np.flatnonzero(bundled.target == digit) for digit in range(10)]
    parts = []
    for _ in range(number):
        length = int(generator.integers(4, 8))
        start = int(generator.integers(0, 10 - length))
        rows = [int(generator.choice(of_digit[digit])) for digit in range(start, start + length)]
        parts += [pixels[rows], pixels[rows[::-1]]]
    return pad(torch.cat(parts), torch.tensor([len(part) for part in parts])), torch.arange(len(parts)) % 2


def learnt(kind: str) -> tuple[nn.Sequential, float]:
    """Return a head trained on movements, and how many of others it tells right."""
    torch.manual_seed(0)
    head = build_head(HeadSpec(kind, 32, layers=2), 64, 2)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    shown, target = movements(100, 0)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(shown), target).backward()
        optimizer.step()
    asked, truth = movements(60, 1)
    with torch.no_grad():
        return head, float((head.eval()(asked).argmax(1) == truth).float().mean())


@pytest.mark.parametrize("kind", ORDERED)
def test_heads_that_read_in_order_tell_forwards_from_backwards(kind: str) -> None:
    assert learnt(kind)[1] > 0.9


@pytest.mark.parametrize("kind", ["mean_pool", "attention"])
def test_heads_that_pool_frames_cannot_tell_forwards_from_backwards(kind: str) -> None:
    head, right = learnt(kind)
    up, down = head(movements(60, 1)[0]).view(60, 2, 2).unbind(1)
    assert torch.allclose(up, down, atol=1e-4)  # the same frames, so the same answer: one of each pair is wrong
    assert right == pytest.approx(0.5, abs=0.05)


def test_head_and_data_must_both_be_of_sequences_or_of_images() -> None:
    options = {"num_classes": 2, "weights": "none", "image_size": 32}
    with pytest.raises(ConfigError, match="reads sequences of frames, and these are single images. Use data=sequences"):
        build_network("test_resnet", head=HeadSpec("gru"), **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="head.kind=mlp reads single images, .*Use head=gru"):
        build_network("test_resnet", head=HeadSpec("mlp"), frames=4, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers": 0}, "head.layers=0 must be a whole number of 1 or more"),
        ({"kernel": 4}, "head.kernel=4 must be odd"),
        ({"standardize": True}, "head.standardize=true is for features of single images"),
        ({"solver": "lbfgs", "l2": 1.0}, "cannot fit head.kind=tcn"),
    ],
)
def test_settings_that_make_no_sense_for_a_sequence_are_refused(changes: dict[str, object], said: str) -> None:
    keys = {"kind": "tcn", "hidden": 8, "dropout": 0.0, "standardize": False, "solver": None, "l2": None, "l1": None}
    with pytest.raises(ConfigError, match=said):
        head_settings(settings_for(HeadSettings, **{**keys, **changes}), seed=0)
