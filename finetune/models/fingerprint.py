"""Fingerprint of a backbone: its architecture, its weights and how it pools."""

import hashlib
from collections.abc import Sequence
from typing import Any

import timm
import torch

from finetune.models.adapters import has_adapters, merge
from finetune.models.network import Network

# counts batches for BatchNorm's averages, which evaluation does not read
UNREAD = "num_batches_tracked"


def backbone_identity(network: Network, skip: Sequence[str] = ()) -> dict[str, Any]:
    """Return what decides a backbone's outputs in eval mode: name, version of timm, weights and pooling.

    Adapters count by what they make of the weights, so that new ones, which change nothing, leave it as it is.

    Args:
        network: Of the backbone.
        skip: Modules of the backbone whose weights do not count.
    """
    backbone = (merge(network) if has_adapters(network) else network).backbone
    pool = getattr(backbone, "global_pool", None)
    return {
        "model": network.name,
        "timm": timm.__version__,
        "weights": weights_digest(backbone, skip),
        "pooling": pool if isinstance(pool, str) else str(getattr(pool, "pool_type", "")),
    }


def weights_digest(module: torch.nn.Module, skip: Sequence[str] = ()) -> str:
    """Return a digest of a module's parameters and buffers: their names, types, shapes and bytes.

    Args:
        module: Whose weights.
        skip: Names of modules inside it that are left out.
    """
    left_out = tuple(f"{name}." for name in skip)
    found = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        if not name.endswith(UNREAD) and not name.startswith(left_out):
            plain = value.detach().cpu().contiguous()
            found.update(f"{name} {plain.dtype} {tuple(plain.shape)};".encode())
            found.update(plain.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
