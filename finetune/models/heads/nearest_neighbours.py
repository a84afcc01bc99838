"""k-nearest neighbours on features: a baseline that fits nothing, for judging features and finding odd labels."""

import torch
from torch import Tensor
from torch.nn import functional

from finetune.errors import ConfigError

_TEMPERATURE = 0.07


@torch.no_grad()
def neighbour_probabilities(
    features: Tensor,
    targets: Tensor,
    queries: Tensor,
    *,
    num_classes: int,
    neighbours: int = 20,
    chunk: int = 1024,
) -> Tensor:
    """Return the probability (M, K) of each class, or of each label by itself, from votes of the nearest images.

    A vote counts exp(cosine / 0.07), so that the nearest count most.

    Args:
        features: Features (N, F) of images with known targets.
        targets: Classes (N,) or multi-hot labels (N, K).
        queries: Features (M, F).
        num_classes: K.
        neighbours: How many images vote; all where there are fewer.
        chunk: Queries that are compared at a time.

    Raises:
        ConfigError: The number of neighbours makes no sense.

    Source: Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, section 3.4.
    """
    if neighbours < 1:
        raise ConfigError(f"neighbours={neighbours} must be 1 or more: 20 is usual.")
    known = functional.normalize(features.float(), dim=1)
    votes = functional.one_hot(targets.long(), num_classes).float() if targets.ndim == 1 else targets.float()
    count = min(neighbours, len(known))
    parts = []
    for block in torch.split(queries, chunk):
        cosines, nearest = (functional.normalize(block.float(), dim=1) @ known.T).topk(count, dim=1)
        shares = (cosines / _TEMPERATURE).softmax(dim=1)
        parts.append((votes[nearest] * shares[:, :, None]).sum(1))
    return torch.cat(parts)
