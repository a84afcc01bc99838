"""Passing images through a network without gradients: one loop for any batches, views, devices, precisions and ranks.

What is read, and in which batches, is the loaders' business; ranks share the rows, and padding never reaches a score.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune.data.datamodule import ImageData
from finetune.errors import RunError
from finetune.models.heads.feature_hook import inputs_of
from finetune.models.network import eval_mode
from finetune.runtime.device import DevicePass
from finetune.uncertainty.ood.detector import FeaturesAndLogits

_Rows = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float32]


class NetworkOutputs(NamedTuple):
    """What a network says of some images, in the order of their rows.

    Attributes:
        rows: (N,) row numbers.
        logits: (V, N, K) in each view.
        targets: (N,) int64, or (N, K) float32 for multi-label.
        sampled: (M,) those rows whose features were asked for.
        features: (M, F) of these, pooled, in the first view; None where none were asked for.
    """

    rows: _Rows
    logits: _Floats
    targets: npt.NDArray[Any]
    sampled: _Rows
    features: _Floats | None = None

    @property
    def of_sample(self) -> FeaturesAndLogits:
        """Features and logits of the rows whose features were asked for."""
        return FeaturesAndLogits(self.features, self.logits[:, np.isin(self.rows, self.sampled)])


@dataclass(frozen=True)
class Predictor:
    """Passes images through a network, which is moved to the device; the mode of its modules is put back.

    Attributes:
        network: Images (B, C, H, W), and of sequences how many frames each has (B,), to logits (B, K).
        device_pass: Where, in which precision, and by how many ranks together.
        channels_last: Whether images and weights are laid out with channels last.
    """

    network: nn.Module
    device_pass: DevicePass
    channels_last: bool = True

    def logits(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the logits (B, K), float32, of a batch: of its image (B, C, H, W), or of cached features (B, F).

        Of sequences the images are those of all frames, and frames (B,) says how many each has.
        """
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        network, device = self.network, self.device_pass.device
        network.to(device, memory_format=layout)  # type: ignore[call-overload]
        with torch.inference_mode(), self.device_pass.context(), eval_mode(network):
            if "features" in batch:
                said = network.get_submodule("head")(batch["features"].to(device))
            else:
                layout = torch.channels_last if self.channels_last else torch.contiguous_format
                image = batch["image"].to(device, non_blocking=True).contiguous(memory_format=layout)
                frames = batch.get("frames")
                said = network(image) if frames is None else network(image, frames)
        return said.float()  # type: ignore[no-any-return]

    def views(self, images: Tensor, frames: Tensor | None = None) -> FeaturesAndLogits:
        """Return pooled features (B, F) in the first view, and logits (V, B, K), of images (B, V, C, H, W)."""
        seen: list[Tensor] = []
        with inputs_of(self.network.get_submodule("head"), seen):
            parts = [self.logits({"image": view, "frames": frames}) for view in images.unbind(1)]
        return FeaturesAndLogits(seen[0].float().cpu().numpy(), torch.stack(parts).cpu().numpy())

    def split(
        self, images: ImageData, split: str, views: int = 1, *, sample: npt.NDArray[np.int64] | None = None
    ) -> NetworkOutputs:
        """Return what the network says of the images of a split, each in several views, as `over` does."""
        place = {"rank": self.device_pass.rank, "world_size": self.device_pass.world_size}
        return self.over([images.view_loader(split, view, **place) for view in range(views)], sample=sample)

    def over(
        self, loaders: Sequence[Iterable[Mapping[str, Any]]], *, sample: npt.NDArray[np.int64] | None = None
    ) -> NetworkOutputs:
        """Return what the network says of all batches of a loader for each view, on every rank, each image once.

        Args:
            loaders: Yield dicts of image, or features, target, row (B,) int64 and valid (B,) bool, which is False for
                padding; each rank's yields its share.
            sample: Row numbers whose features are wanted too, in the first view; None for none.

        Raises:
            RunError: There is no batch.
        """
        found = [self._all_of(loader, sample if not view else None) for view, loader in enumerate(loaders)]
        (rows, _, targets, features), logits = found[0], np.stack([part[1] for part in found], axis=1)
        shares = self.device_pass.gathered([(rows, logits, targets, features)])
        rows, logits, targets = (np.concatenate([share[place] for share in shares]) for place in range(3))
        order, chosen = np.argsort(rows, kind="stable"), np.isin(rows, [] if sample is None else sample)
        if sample is not None:
            features = np.concatenate([share[3] for share in shares])[np.argsort(rows[chosen], kind="stable")]
        return NetworkOutputs(
            rows[order], logits[order].swapaxes(0, 1), targets[order], np.sort(rows[chosen]), features
        )  # fmt: skip

    def _all_of(self, batches: Iterable[Mapping[str, Any]], sample: npt.NDArray[np.int64] | None) -> tuple[Any, ...]:
        """Return rows (N,), logits (N, K), targets and the features of the sample (M, F), without padding."""
        parts = []
        for batch in batches:
            valid = batch["valid"].cpu()
            seen: list[Tensor] = []
            with inputs_of(self.network.get_submodule("head"), seen) if sample is not None else nullcontext():
                said = self.logits(batch)
            rows, logits, targets = (part.cpu()[valid].numpy() for part in (batch["row"], said, batch["target"]))
            features = None if sample is None else seen[0].float().cpu()[valid].numpy()[np.isin(rows, sample)]
            parts.append((rows, logits, targets, features))
        if not parts:
            raise RunError(
                "There are no images to predict: the split is empty. Choose another with split=train|val|test."
            )
        *columns, features = zip(*parts, strict=True)
        return (*map(np.concatenate, columns), None if sample is None else np.concatenate(features))
