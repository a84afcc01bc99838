"""How a masked autoencoder is trained, checked."""

from dataclasses import dataclass

from finetune.errors import ConfigError

HEAD_WIDTH = 32  # of each attention head of the decoder


@dataclass(frozen=True)
class PretrainSettings:
    """How a masked autoencoder is trained.

    Attributes:
        epochs: Passes over the images.
        mask_ratio: Share of the patches that the encoder does not see.
        decoder_width: Width of the decoder, a multiple of 32.
        decoder_depth: Its blocks.
        images: Whose reconstructions are shown.

    Raises:
        ConfigError: A number makes no sense.
    """

    epochs: int = 100
    mask_ratio: float = 0.75
    decoder_width: int = 256
    decoder_depth: int = 4
    images: int = 8

    def __post_init__(self) -> None:
        """Check the settings."""
        for name, least in (("epochs", 1), ("decoder_depth", 1), ("images", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"pretrain.{name}={getattr(self, name)} must be a whole number of {least} or more.")
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"pretrain.mask_ratio={self.mask_ratio} must lie above 0 and below 1, such as 0.75.")
        if self.decoder_width < HEAD_WIDTH or self.decoder_width % HEAD_WIDTH:
            near = max(1, round(self.decoder_width / HEAD_WIDTH)) * HEAD_WIDTH
            raise ConfigError(
                f"pretrain.decoder_width={self.decoder_width} must be a multiple of {HEAD_WIDTH}, such as {near}."
            )
