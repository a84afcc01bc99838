"""Feature extraction by a frozen backbone: each image passes through it once per view, whoever asks for it."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune.data.cache.shards import Entries, Shard
from finetune.data.cache.store import Cache, CacheSpace
from finetune.data.datamodule import ImageData, seed_of, view_keys
from finetune.data.sampling import Draw
from finetune.data.sequences.batches import SequenceData, check_sequence_views
from finetune.errors import RunError
from finetune.features.cached_features import VALUES, CachedFeatures, SequenceFeatures
from finetune.models.batchnorm_folding import fold_norms
from finetune.models.fingerprint import backbone_identity
from finetune.models.network import Network, eval_mode
from finetune.runtime.device import DevicePass

log = logging.getLogger(__name__)

_FORMAT = 1
# a file is written when so many bytes or seconds of work would be lost otherwise
FILE_BYTES = 64 * 10**6
FILE_SECONDS = 60.0


@dataclass(frozen=True)
class FeatureSettings:
    """How features are made and kept.

    Attributes:
        views: Views of each training image; the first is that of evaluation, the others are augmented, each always in
            the same way.
        tta_views: Views of each image that is scored at the end of a run; their probabilities are averaged.
        dtype: float32, or float16 for half the size on disk.
        cache: Where features are kept; None keeps them in memory for the phase.
        repeat_views: Views of an image of a rare class for draws that are repeats, where these are varied otherwise.
    """

    views: int = 1
    tta_views: int = 1
    dtype: str = "float32"
    cache: Cache | None = None
    repeat_views: int = 4

    @property
    def exact(self) -> bool:
        """Whether kept features are those that were computed, so that scores may be made of them."""
        return self.dtype == "float32"


class FeatureSource:
    """Makes the features of a table's images by one network, and finds those that were made before."""

    def __init__(
        self,
        network: Network,
        images: ImageData,
        settings: FeatureSettings,
        device_pass: DevicePass,
        encode: Callable[[nn.Module, Tensor], Tensor] | None = None,
        point: str = "pooled",
        skip: Sequence[str] = (),
        width: int | None = None,
    ) -> None:
        """Use the network as it is now; it must stand still while features are taken from it.

        Args:
            network: Its backbone is put in eval mode when features are computed, as frozen layers are.
            images: The images and their transforms; the features of sequences are those of their frames.
            settings: How features are kept.
            device_pass: Where they are computed.
            encode: Backbone and images (B, C, H, W) to what is kept (B, ...); None for the backbone's pooled features.
            point: Names what is kept.
            skip: Modules of the backbone that what is kept does not depend on.
            width: Values that are kept of an image; None for the pooled features.
        """
        self.network = network
        self.sequences = images if isinstance(images, SequenceData) else None
        self.images = images if self.sequences is None else self.sequences.frames
        self.settings = settings
        self.device_pass = device_pass
        self.encode = encode or (lambda backbone, images: backbone(images))
        self.identity = {
            "format": _FORMAT, **backbone_identity(network, skip), "point": point,
            "input": self.images.input_description,
            "precision": device_pass.precision, "device": device_pass.device.type, "dtype": settings.dtype,
        }  # fmt: skip
        self.width = network.num_features if width is None else width
        self.memory: dict[bool, Entries] = {}
        self.seconds = 0.0
        self.computed = 0

    def space(self, augmented: bool) -> CacheSpace | None:
        """Return where the views are kept: those of evaluation apart from the augmented ones."""
        if self.settings.cache is None:
            return None
        transform = self.images.augment_description if augmented else None
        return self.settings.cache.space("features", {**self.identity, "augment": transform})

    def features(self, rows: npt.NDArray[np.int64], views: int = 1) -> CachedFeatures:
        """Return the features of some rows; what is missing is computed, each rank its share.

        Raises:
            ConfigError: They do not fit into the cache, or several views of sequences are asked for.
            RunError: They cannot be kept as asked.
        """
        if self.sequences is None:
            return self.of_images(rows, views)
        check_sequence_views(views, "features.views")
        members = self.sequences.frames_of(rows)
        return SequenceFeatures(rows, members, self.of_images(np.concatenate(members)))

    def of_images(self, rows: npt.NDArray[np.int64], views: int = 1) -> CachedFeatures:
        """Return the features of some rows of images, or of frames."""
        keys = self.keys(rows, views)
        # the draw of each row is varied by a seed that is a function of its key
        wanted = [
            {key: Draw(int(row), seed_of(key), True) for row, key in zip(rows, names, strict=True)} for names in keys
        ]
        plain = self.fill(False, wanted[0])
        varied = (
            self.fill(True, {key: draw for part in wanted[1:] for key, draw in part.items()}) if views > 1 else plain
        )
        return CachedFeatures(rows, keys, [plain, *[varied] * (views - 1)])

    def count(self, rows: npt.NDArray[np.int64]) -> int:
        """Return how many images are passed through the backbone for some rows, where none is known."""
        return len(rows) if self.sequences is None else sum(map(len, self.sequences.frames_of(rows)))

    def kept(self, rows: npt.NDArray[np.int64], views: int) -> int:
        """Return how many features of some rows need not be computed."""
        keys = self.keys(rows, views)
        there = [
            self.load(self.space(augmented), augmented) for augmented in ((False, True) if views > 1 else (False,))
        ]
        return sum(key in there[int(view > 0)] for view, names in enumerate(keys) for key in names)

    def keys(self, rows: npt.NDArray[np.int64], views: int) -> list[list[str]]:
        """Return the keys of each view of some rows (V, N)."""
        digests = self.images.digests(rows)
        return [view_keys(digests, view) for view in range(views)]

    def fill(self, augmented: bool, wanted: Mapping[str, Draw]) -> Entries:
        """Return entries of all wanted keys."""
        space = self.space(augmented)
        entries = self.load(space, augmented)
        if self.device_pass.agreed(not entries.missing(list(wanted))):
            return entries
        with self.device_pass.alone(None if space is None else space.locked()):
            missing = self.device_pass.agreed(self.load(space, augmented).missing(list(wanted)))
            mine = missing[self.device_pass.rank :: self.device_pass.world_size]
            if space is not None:
                self.check_room(space, len(missing))
            if missing:
                self.compute(space, augmented, {key: wanted[key] for key in mine}, len(missing))
        entries = self.load(space, augmented)
        absent = entries.missing(list(wanted))
        if absent:
            raise RunError(
                f"{len(absent):,} features are not in the cache although they were computed. cache.dir must be on a "
                "disk that all machines of the run share."
            )
        if space is not None and self.device_pass.rank == 0:
            space.cache.evict(keep=space)
        return entries

    def load(self, space: CacheSpace | None, augmented: bool) -> Entries:
        """Return the entries that there are."""
        return space.load() if space is not None else self.memory.get(augmented, Entries([]))

    def check_room(self, space: CacheSpace, count: int) -> None:
        """Check that so many features more can be kept."""
        size = count * self.width * np.dtype(self.settings.dtype).itemsize
        space.cache.check_room(size, space, f"The features of {count:,} images")

    def compute(self, space: CacheSpace | None, augmented: bool, wanted: Mapping[str, Draw], total: int) -> None:
        """Pass this rank's share of the images through the backbone, and keep the result."""
        started = time.monotonic()
        shards = []
        for keys, values in in_files(self.encoded(list(wanted.items()), augmented)):
            if space is not None:
                space.write(keys, {VALUES: values})
            else:
                shards.append(Shard.of(keys, {VALUES: values}))
        if space is None:
            self.memory[augmented] = Entries([*self.load(None, augmented).shards, *self.device_pass.gathered(shards)])
        self.seconds += time.monotonic() - started
        self.computed += total
        log.info("Computed the features of %s images in %.1f s.", f"{total:,}", time.monotonic() - started)

    @torch.no_grad()
    def encoded(
        self, items: Sequence[tuple[str, Draw]], augmented: bool
    ) -> Iterator[tuple[list[str], npt.NDArray[Any]]]:
        """Yield keys and features (B, ...) of one batch after the other, in the type that they are kept in."""
        size = self.images.eval_batch_size
        groups = [items[start : start + size] for start in range(0, len(items), size)]
        loader = self.images.draws([[draw for _, draw in group] for group in groups], augmented=augmented)
        backbone: nn.Module | None = None
        self.network.backbone.to(self.device_pass.device)
        with eval_mode(self.network.backbone):
            for group, batch in zip(groups, loader, strict=True):
                images = self.on_device(batch["image"])
                backbone = self.faster(images) if backbone is None else backbone
                yield [key for key, _ in group], self.encode_images(backbone, images)

    def on_device(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) where and as the backbone wants them."""
        return images.to(self.device_pass.device, non_blocking=True).contiguous(memory_format=torch.channels_last)

    def faster(self, images: Tensor) -> nn.Module:
        """Return the backbone with its norms folded, where that changes its outputs by no more than rounding."""
        if self.device_pass.precision != "32-true":
            return self.network.backbone
        return fold_norms(self.network.backbone, images[:2])

    def encode_images(self, backbone: nn.Module, images: Tensor) -> npt.NDArray[Any]:
        """Return the features (B, ...) of images (B, C, H, W) in the type that they are kept in."""
        with self.device_pass.context():
            values = self.encode(backbone, images)
        with np.errstate(over="ignore"):  # found just below
            kept = values.float().cpu().numpy().astype(self.settings.dtype)
        if not np.isfinite(kept).all():
            hint = " Set features.dtype=float32." if self.settings.dtype == "float16" else ""
            raise RunError(f"{self.network.name} gives features that {self.settings.dtype} cannot hold.{hint}")
        return kept


def extract_features(
    network: Network,
    images: ImageData,
    rows: npt.NDArray[np.int64],
    settings: FeatureSettings,
    device_pass: DevicePass,
    views: int = 1,
) -> CachedFeatures:
    """Return the features of some rows of images or sequences, of which those that are missing are computed.

    The network is on the CPU afterwards. Arguments are those of `FeatureSource`; it raises what that raises.
    """
    found = FeatureSource(network, images, settings, device_pass).features(rows, views)
    network.cpu()
    return found


def in_files(
    batches: Iterable[tuple[list[str], npt.NDArray[Any]]],
) -> Iterator[tuple[list[str], npt.NDArray[Any]]]:
    """Join batches of keys and values to pieces that are worth a file."""
    keys: list[str] = []
    parts: list[npt.NDArray[Any]] = []
    begun = time.monotonic()
    for names, values in batches:
        keys += names
        parts.append(values)
        if sum(part.nbytes for part in parts) >= FILE_BYTES or time.monotonic() - begun >= FILE_SECONDS:
            yield keys, np.concatenate(parts)
            keys, parts, begun = [], [], time.monotonic()
    if keys:
        yield keys, np.concatenate(parts)
