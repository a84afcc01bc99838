"""A vision transformer of timm as encoder: which ones are plain enough, and a pass over visible patches alone."""

import torch
from timm.layers import PatchEmbed
from timm.models import checkpoint_seq
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from finetune.errors import ConfigError

SUGGESTED = "vit_small_patch16_224, vit_base_patch16_224.mae or vit_small_patch14_dinov2"
# what pooling adds after the patches' own features, which a reconstruction does not pass through
POOLING = ("fc_norm.", "attn_pool.", "head.", "head_drop.")


def plain_vit(backbone: nn.Module, name: str) -> VisionTransformer:
    """Return a backbone as a vision transformer whose patches can be left out.

    Raises:
        ConfigError: It is another kind of network.
    """
    known = type(backbone) is VisionTransformer and type(backbone.patch_embed) is PatchEmbed
    if not known or not isinstance(getattr(backbone, "pos_embed", None), Tensor):
        raise ConfigError(
            f"model.name={name} is a {type(backbone).__name__}, and a masked autoencoder needs a plain vision "
            f"transformer with a learnt position for each patch. Use one such as {SUGGESTED}."
        )
    assert isinstance(backbone, VisionTransformer)
    return backbone


def freeze_pooling(backbone: VisionTransformer) -> None:
    """Let what comes after the patches' features stand still, since no gradient reaches it."""
    for name, weight in backbone.named_parameters():
        weight.requires_grad = not name.startswith(POOLING)


def encode_visible(backbone: VisionTransformer, images: Tensor, visible: Tensor) -> Tensor:
    """Return features (B, P + V, D) of P prefix tokens and of the visible patches alone.

    Args:
        backbone: The transformer.
        images: (B, C, H, W), normalised.
        visible: (B, V) int64, numbers of the patches that are seen, row by row.

    Source: He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, section 3 (MAE encoder).
    """
    prefix = backbone.num_prefix_tokens
    tokens = backbone._pos_embed(backbone.patch_embed(images))
    seen = torch.gather(tokens[:, prefix:], 1, visible[:, :, None].expand(-1, -1, tokens.shape[2]))
    tokens = backbone.norm_pre(torch.cat([tokens[:, :prefix], seen], dim=1))
    tokens = checkpoint_seq(backbone.blocks, tokens) if backbone.grad_checkpointing else backbone.blocks(tokens)
    return backbone.norm(tokens)  # type: ignore[no-any-return]
