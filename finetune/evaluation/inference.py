"""Running a network over batches of images in one process, without gradients.

It decides device placement, precision and that padding never reaches a score; what is read is the batches' business.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from finetune.errors import ConfigError, RunError, nearest
from finetune.models.heads.feature_hook import inputs_of
from finetune.runtime.precision import autocast


class NetworkOutputs(NamedTuple):
    """What a network said of some images.

    Attributes:
        rows: (N,) int64 row numbers.
        logits: (N, K) float32; (V, N, K) for images in several views.
        targets: (N,) int64, or (N, K) float32 for multi-label.
        features: (M, F) float32, pooled, of the rows of the sample in their order; None without a sample.
    """

    rows: np.ndarray
    logits: np.ndarray
    targets: np.ndarray
    features: np.ndarray | None = None


def choose_device(name: str) -> torch.device:
    """Return the device of that name; auto is the first CUDA device where there is one, else the CPU.

    Raises:
        ConfigError: The name means no device, or one that this machine lacks.
    """
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=(device := torch.device(name)))
    except (RuntimeError, AssertionError) as error:
        hint = nearest(name, ("auto", "cpu", "cuda"))
        raise ConfigError(f"device={name} is not there. Use auto, cpu, or cuda where there is a GPU.{hint}") from error
    return device


def predict_loader(
    network: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    *,
    device: torch.device,
    precision: str = "32-true",
    sample: np.ndarray | None = None,
) -> NetworkOutputs:
    """Run the network over all batches and return its outputs in the order of the rows, without padding.

    Args:
        network: Images (B, C, H, W) to logits (B, K). Moved to the device; its train or eval mode is as before.
        batches: Dicts of image (B, C, H, W) float32, target, row (B,) int64 and valid (B,) bool; of sequences the
            images are those of all frames, and frames (B,) how many each has.
        device: Where to compute.
        precision: 32-true, bf16-mixed or 16-mixed.
        sample: Row numbers (M,) whose features are wanted too, of a network with a head; None for none.

    Raises:
        ConfigError: The precision is not known.
        RunError: There is no batch.
    """
    parts = list(predict_batches(network, batches, device=device, precision=precision, sample=sample))
    if not parts:
        raise RunError("There are no images to predict: the split is empty. Choose another with split=train|val|test.")
    rows, logits, targets = (np.concatenate(column) for column in list(zip(*parts, strict=True))[:3])
    order = np.argsort(rows, kind="stable")
    features = None
    if sample is not None:
        of_sample = np.argsort(rows[np.isin(rows, sample)], kind="stable")
        features = np.concatenate([part.features for part in parts if part.features is not None])[of_sample]
    return NetworkOutputs(rows[order], logits[order], targets[order], features)


def predict_batches(
    network: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    *,
    device: torch.device,
    precision: str = "32-true",
    sample: np.ndarray | None = None,
) -> Iterator[NetworkOutputs]:
    """Yield the outputs of one batch after the other, without padding; arguments as in `predict_loader`."""
    for batch in batches:
        valid = batch["valid"].cpu()
        seen: list[Tensor] = []
        with inputs_of(network.get_submodule("head"), seen) if sample is not None else nullcontext():
            said = forward(network, batch["image"], batch.get("frames"), device=device, precision=precision)
        rows, logits, targets = (part.cpu()[valid].numpy() for part in (batch["row"], said, batch["target"]))
        features = None if sample is None else seen[0].float().cpu()[valid].numpy()[np.isin(rows, sample)]
        yield NetworkOutputs(rows, logits, targets, features)


def forward(
    network: nn.Module, images: Tensor, frames: Tensor | None = None, *, device: torch.device, precision: str
) -> Tensor:
    """Compute the logits (B, K), float32, of images (B, C, H, W), or of sequences of so many frames (B,) of them."""
    images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode(), autocast(device, precision), _eval_mode(network):
        logits: Tensor = network(images) if frames is None else network(images, frames)
    return logits.float()


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    """Put the network in eval mode and each module back as it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
