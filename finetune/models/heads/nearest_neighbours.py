"""k-nearest neighbours on features: a baseline that fits nothing, for judging features and finding odd labels."""

import torch
from torch import Tensor
from torch.nn import functional

from finetune.errors import ConfigError


@torch.no_grad()
def neighbour_probabilities(
    features: Tensor,
    targets: Tensor,
    queries: Tensor,
    *,
    num_classes: int,
    neighbours: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """Return the probability (M, K) of each class, or of each label by itself, from votes of the nearest images.

    A vote counts exp(cosine / temperature).

    Args:
        features: Features (N, F) of images with known targets.
        targets: Classes (N,) or multi-hot labels (N, K).
        queries: Features (M, F).
        num_classes: K.
        neighbours: How many images vote; all where there are fewer.
        temperature: The lower, the more the nearest count.
        chunk: Queries that are compared at a time.

    Raises:
        ConfigError: The number of neighbours or the temperature makes no sense.

    Source: Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, section 3.4.
    """
    if neighbours < 1 or temperature <= 0:
        raise ConfigError(
            f"neighbours={neighbours} must be 1 or more, and temperature={temperature} must be above 0: 20 and 0.07 "
            "are usual."
        )
    known = functional.normalize(features.float(), dim=1)
    votes = functional.one_hot(targets.long(), num_classes).float() if targets.ndim == 1 else targets.float()
    count = min(neighbours, len(known))
    parts = []
    for block in torch.split(queries, chunk):
        cosines, nearest = (functional.normalize(block.float(), dim=1) @ known.T).topk(count, dim=1)
        shares = (cosines / temperature).softmax(dim=1)
        parts.append((votes[nearest] * shares[:, :, None]).sum(1))
    return torch.cat(parts)
