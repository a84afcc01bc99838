"""A masked autoencoder: patches are hidden, the others are encoded, and a light decoder rebuilds what was hidden."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from finetune.config.settings.training_groups import HEAD_WIDTH, PretrainSettings
from finetune.training.pretraining.encoder import encode_visible

_EPSILON = 1e-6


class Mask(NamedTuple):
    """Which patches of B images are seen.

    Attributes:
        visible: (B, V) int64, their numbers.
        restore: (B, L) int64, at which place each patch stands where the visible ones come first.
        hidden: (B, L) float32, 1 for a patch that is not seen.
    """

    visible: Tensor
    restore: Tensor
    hidden: Tensor


def make_mask(noise: Tensor, ratio: float) -> Mask:
    """Return a mask that hides the patches with the highest noise (B, L); at least one is seen and one is hidden.

    Source: He et al. 2022, section 3 (masking), as in the authors' random_masking: floor(L * (1 - ratio)) are seen.
    """
    count = noise.shape[1]
    seen = min(max(1, int(count * (1 - ratio))), count - 1)
    order = torch.argsort(noise, dim=1, stable=True)
    restore = torch.argsort(order, dim=1, stable=True)
    return Mask(order[:, :seen], restore, (restore >= seen).float())


def draw_noise(rows: npt.NDArray[np.int64], patches: int, *, seed: int, epoch: int) -> Tensor:
    """Return noise (B, L) in [0, 1) that is a function of seed, epoch and image alone, whatever the batch and rank."""
    drawn = [np.random.default_rng([seed, epoch, int(row)]).random(patches, np.float32) for row in rows]
    return torch.from_numpy(np.stack(drawn))


def patchify(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images (B, C, H, W) as patches (B, L, h * w * C), row by row."""
    (height, width), (batch, channels, rows, columns) = size, images.shape
    cut = images.reshape(batch, channels, rows // height, height, columns // width, width)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, height * width * channels)


def unpatchify(patches: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Return patches (B, L, h * w * C) as images (B, C, H, W)."""
    (height, width), (rows, columns) = size, grid
    cut = patches.reshape(len(patches), rows, columns, height, width, -1)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, rows * height, columns * width)


def _normalised(patches: Tensor) -> Tensor:
    """Return patches (B, L, P) with mean 0 and variance 1 each.

    Source: He et al. 2022, section 3 (reconstruction target).
    """
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return (patches - mean) / (variance + _EPSILON).sqrt()


class Decoder(nn.Module):
    """Rebuilds all patches from features of the visible ones.

    Source: He et al. 2022, section 3 (MAE decoder), and section 4.1 (a decoder this light costs little accuracy).
    """

    def __init__(self, encoder: VisionTransformer, channels: int, width: int, depth: int) -> None:
        """Make a decoder for the patches of an encoder's images."""
        super().__init__()
        self.prefix = encoder.num_prefix_tokens
        height, rest = encoder.patch_embed.patch_size
        self.embed = nn.Linear(encoder.embed_dim, width)
        self.hidden = nn.Parameter(torch.zeros(1, 1, width))
        self.positions: Tensor
        grid = build_sincos2d_pos_embed(list(encoder.patch_embed.grid_size), dim=width)
        self.register_buffer("positions", grid[None], persistent=False)
        self.blocks = nn.Sequential(*(Block(width, width // HEAD_WIDTH, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=_EPSILON)
        self.pixels = nn.Linear(width, height * rest * channels)
        nn.init.normal_(self.hidden, std=0.02)
        self.apply(initialise)

    def forward(self, features: Tensor, restore: Tensor) -> Tensor:
        """Return patches (B, L, P) from features (B, prefix + V, D) and the place of each patch (B, L)."""
        tokens = self.embed(features)
        first, seen = tokens[:, : self.prefix], tokens[:, self.prefix :]
        missing = self.hidden.to(seen.dtype).expand(len(seen), restore.shape[1] - seen.shape[1], -1)
        everything = torch.cat([seen, missing], dim=1)
        places = restore[:, :, None].expand(-1, -1, everything.shape[2])
        patches = torch.gather(everything, 1, places) + self.positions
        tokens = self.norm(self.blocks(torch.cat([first, patches], dim=1)))
        return self.pixels(tokens[:, self.prefix :])  # type: ignore[no-any-return]


def initialise(module: nn.Module) -> None:
    """Set the first weights of a linear layer as the authors do."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class MaskedAutoencoder(nn.Module):
    """An encoder that sees part of the patches, and a decoder that rebuilds the others.

    Attributes:
        encoder: The transformer that is pretrained.
        decoder: Thrown away afterwards.
        patch_size: Height and width of a patch.
        grid_size: Patches from top to bottom and from left to right.
    """

    def __init__(self, encoder: VisionTransformer, channels: int, settings: PretrainSettings) -> None:
        """Put a new decoder on an encoder."""
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder(encoder, channels, settings.decoder_width, settings.decoder_depth)
        self.ratio = settings.mask_ratio
        self.patch_size: tuple[int, int] = tuple(encoder.patch_embed.patch_size)
        self.grid_size: tuple[int, int] = tuple(encoder.patch_embed.grid_size)

    @property
    def num_patches(self) -> int:
        """How many patches an image has."""
        return self.grid_size[0] * self.grid_size[1]

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Mask]:
        """Return the loss of each image (B,), the rebuilt normalised patches (B, L, P) and the mask.

        The loss is the mean squared error over the hidden patches, each normalised by its own mean and variance.
        """
        mask = make_mask(noise, self.ratio)
        rebuilt = self.decoder(encode_visible(self.encoder, images, mask.visible), mask.restore).float()
        with torch.no_grad():
            target = _normalised(patchify(images.float(), self.patch_size))
        errors = ((rebuilt - target) ** 2).mean(dim=2)
        return (errors * mask.hidden).sum(dim=1) / mask.hidden.sum(dim=1), rebuilt, mask
