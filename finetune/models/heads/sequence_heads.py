"""Sequence heads: pooling, attention, recurrent and convolutional layers over frames, with padding and masks."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence


def pad(features: Tensor, frames: Tensor) -> Tensor:
    """Return sequences (B, T, 1 + F) of frames' features, filled up with zeros to the longest of them.

    The first value of a step is 1 where there is a frame and 0 where there is none, so that the mask goes wherever the
    features go: through caches, batches and hooks.

    Args:
        features: Features (N, F) of the frames of all sequences, one sequence after the other.
        frames: How many of them each sequence has (B,), 1 or more; their sum is N.
    """
    marked = torch.cat([features.new_ones(len(features), 1), features], 1)
    return pad_sequence(list(torch.split(marked, frames.tolist())), batch_first=True)


def unpad(sequences: Tensor) -> tuple[Tensor, Tensor]:
    """Return features (B, T, F) and whether there is a frame (B, T) of padded sequences (B, T, 1 + F)."""
    return sequences[..., 1:], sequences[..., 0] > 0.5


def columns_of(features: Tensor, start: int, end: int) -> Tensor:
    """Return some of the features of images (B, F), or of padded sequences (B, T, 1 + F) with their mask."""
    if features.ndim == 2:
        return features[:, start:end]
    return torch.cat([features[..., :1], features[..., 1 + start : 1 + end]], -1)


def mean_of(sequences: Tensor) -> Tensor:
    """Return the mean features (B, F) of the frames of padded sequences (B, T, 1 + F)."""
    return masked_mean(*unpad(sequences))


def masked_mean(values: Tensor, present: Tensor) -> Tensor:
    """Return the mean (B, D) of the values (B, T, D) of the frames that are present (B, T)."""
    kept = values.masked_fill(~present[..., None], 0.0)
    return kept.sum(1) / present.sum(1, keepdim=True).to(values.dtype)


class MeanPool(nn.Module):
    """Padded sequences (B, T, 1 + F) to the mean features of their frames (B, F); their order plays no part."""

    def __init__(self, num_features: int) -> None:
        """Take frames of so many features."""
        super().__init__()
        self.width = num_features

    def forward(self, sequences: Tensor) -> Tensor:
        """Return mean features (B, F)."""
        return mean_of(sequences)


class AttentionPool(nn.Module):
    """Padded sequences (B, T, 1 + F) to a weighted mean of their frames (B, F), each weighted by what it shows.

    The order of frames plays no part.

    Source: Ilse, Tomczak and Welling 2018, Attention-based Deep Multiple Instance Learning, section 2.4, equation 8.
    """

    def __init__(self, num_features: int, hidden: int) -> None:
        """Score frames of so many features by a layer of width `hidden`."""
        super().__init__()
        self.width = num_features
        self.score = nn.Sequential(nn.Linear(num_features, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))

    def forward(self, sequences: Tensor) -> Tensor:
        """Return weighted features (B, F)."""
        features, _ = unpad(sequences)
        return (self.weights(sequences)[..., None] * features).sum(1)

    def weights(self, sequences: Tensor) -> Tensor:
        """Return what each frame counts (B, T); padding counts nothing, and the others sum to 1."""
        features, present = unpad(sequences)
        scores = self.score(features).squeeze(-1).float()
        weights: Tensor = scores.masked_fill(~present, -math.inf).softmax(1)
        return weights.to(sequences.dtype)


class Recurrent(nn.Module):
    """Padded sequences (B, T, 1 + F) to the last state (B, D) of a recurrent network that reads frames in order.

    Where it reads in both directions, D is twice the width: the states after the last and before the first frame.

    Source: Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder, section 2.3 (GRU); Hochreiter
    and Schmidhuber 1997, Long Short-Term Memory; Ba et al. 2016, Layer Normalization, for features of any scale.
    """

    def __init__(
        self, kind: str, num_features: int, hidden: int, *, layers: int, bidirectional: bool, dropout: float
    ) -> None:
        """Make a gru or lstm of width `hidden`; dropout acts between its layers."""
        super().__init__()
        self.width = hidden * (2 if bidirectional else 1)
        self.norm = nn.LayerNorm(num_features)
        self.network: nn.GRU | nn.LSTM = (nn.GRU if kind == "gru" else nn.LSTM)(
            num_features, hidden, layers, batch_first=True, bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0,
        )  # fmt: skip

    def forward(self, sequences: Tensor) -> Tensor:
        """Return the last states (B, D)."""
        features, present = unpad(sequences)
        lengths = present.sum(1).cpu()  # where torch wants them
        packed = pack_padded_sequence(self.norm(features), lengths, batch_first=True, enforce_sorted=False)
        state = self.network(packed)[1]
        last: Tensor = state[0] if isinstance(state, tuple) else state
        return torch.cat([last[-2], last[-1]], 1) if self.network.bidirectional else last[-1]


class TemporalConvolution(nn.Module):
    """Padded sequences (B, T, 1 + F) to the mean (B, D) of what dilated convolutions over time make of them.

    Each layer looks twice as far as the one before. Steps without a frame are zero before every convolution, as what
    lies beyond the ends of a sequence is.

    Source: Bai, Kolter and Koltun 2018, An Empirical Evaluation of Generic Convolutional and Recurrent Networks for
    Sequence Modeling, section 3 (dilations, residuals); not causal, since the whole sequence is there.
    """

    def __init__(self, num_features: int, hidden: int, *, layers: int, kernel: int, dropout: float) -> None:
        """Make so many layers of width `hidden`, each of `kernel` frames."""
        super().__init__()
        self.width = hidden
        self.enter = nn.Sequential(nn.LayerNorm(num_features), nn.Linear(num_features, hidden))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2 * 2**depth, dilation=2**depth)
            for depth in range(layers)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, sequences: Tensor) -> Tensor:
        """Return mean values (B, D)."""
        features, present = unpad(sequences)
        values: Tensor = self.enter(features)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            shown = functional.gelu(norm(values)).masked_fill(~present[..., None], 0.0)
            values = values + self.dropout(convolution(shown.transpose(1, 2)).transpose(1, 2))
        return masked_mean(values, present)
