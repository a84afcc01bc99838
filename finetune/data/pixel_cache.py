"""Pixel cache: decoded images on disk, so that each is decoded once for all epochs and runs.

For evaluation it holds just what the weights are shown, for training as many pixels as the smallest crop needs.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import PIL
import timm
import torch
from PIL import Image

from finetune.config.settings.training_groups import Augment
from finetune.data.cache.shards import Entries, ShardArray
from finetune.data.cache.store import Cache, CacheSpace
from finetune.data.decoding import Cutout, DecodedImage, Region, Size
from finetune.data.resizing import UNSCALABLE, resize
from finetune.data.table import ImageStore
from finetune.data.transforms import InputSpec, Transform
from finetune.errors import ConfigError
from finetune.runtime.device import cores

_FORMAT = 1
# images that are decoded together, and bytes that are written as one file
_TOGETHER = 64
_FILE_BYTES = 64 * 10**6
MULTIPLE = 32
# width by height of an image that room is made for
USUAL_RATIO = 4 / 3


class StoredPicture(DecodedImage):
    """A picture of which fewer pixels were kept than it has, so that a region is found to half a kept pixel."""

    def __init__(self, image: Image.Image, size: Size) -> None:
        """Take what was kept, and width and height of the whole picture."""
        self.image = image
        self.waits = False
        self.original = size

    @property
    def size(self) -> Size:
        """Width and height of the whole picture."""
        return self.original

    def cutout(self, region: Region) -> Cutout:
        """Return what was kept, and the region in it, moved to where pixels begin."""
        scale = [kept / size for kept, size in zip(self.image.size, self.original, strict=True)] * 2
        left, top, right, bottom = (round(value * factor) for value, factor in zip(region.box, scale, strict=True))
        return Cutout(self.image, (left, top, max(right, left + 1), max(bottom, top + 1)))


class StoredImages:
    """Images of any sizes in a space, mapped into memory; another process maps them anew."""

    def __init__(self, space: CacheSpace, *, finished: bool) -> None:
        """Find the images of a space, which are ready for the weights if `finished`, else to be cropped."""
        self.space = space
        self.finished = finished

    @cached_property
    def entries(self) -> Entries:
        """What the space held when it was first asked for."""
        return self.space.load()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is mapped."""
        return {"space": self.space, "finished": self.finished}

    def pixels(self, key: str, transform: Transform) -> Image.Image:
        """Return an image at the weights' size, as `transform` makes it."""
        number, row = self.entries.place[key]
        arrays = self.entries.shards[number].arrays
        shape, start = arrays["shape"][row].tolist(), int(arrays["start"][row])
        image = Image.fromarray(np.asarray(arrays["pixels"])[start : start + math.prod(shape)].reshape(shape).squeeze())
        return image if self.finished else transform.pixels(StoredPicture(image, tuple(arrays["size"][row].tolist())))


class PixelCache:
    """Fills the cache with the images of a table, and finds those that were stored before.

    Evaluation sees the same pixels as without it; of training images, values (0 to 255) of the same crop differ by less
    than 4 on average on photos.
    """

    def __init__(self, cache: Cache, spec: InputSpec, augment: Augment) -> None:
        """Store images for weights and an augmentation.

        Raises:
            ConfigError: Pixels are to be exact, or resized so that no smaller image has them.
        """
        if augment.enabled and (spec.exact or spec.interpolation in UNSCALABLE):
            other = "data.exact_pixels=true" if spec.exact else f"model.interpolation={spec.interpolation}"
            raise ConfigError(
                f"data.pixel_cache=true keeps training images smaller than they are, which {other} excludes. Set "
                "data.pixel_cache=false."
            )
        self.cache = cache
        self.spec = spec
        side = max(spec.height, spec.width) / math.sqrt(augment.crop_scale[0])
        self.shorter = MULTIPLE * math.ceil(side / MULTIPLE)
        versions = {"pillow": PIL.__version__, "torch": torch.__version__, "timm": timm.__version__}
        self.versions = {"format": _FORMAT, **versions}

    def evaluation(self, store: ImageStore, paths: Mapping[str, str], transform: Transform) -> StoredImages:
        """Return images (path by digest) as `transform`, that of evaluation, shows them to the weights."""
        space = self.cache.space("pixels", {**self.versions, "for": "evaluation", "input": self.spec.description()})
        size = self.spec.height * self.spec.width * self.spec.channels
        return self.filled(StoredImages(space, finished=True), store, paths, transform.pixels, size)

    def training(self, store: ImageStore, paths: Mapping[str, str]) -> StoredImages:
        """Return images (path by digest) with as many pixels as the smallest crop needs, or all they have."""
        described: dict[str, Any] = {"channels": self.spec.channels, "shorter": self.shorter}
        described["interpolation"] = self.spec.interpolation
        if self.spec.value_range is not None:
            described["value_range"] = self.spec.value_range
        space = self.cache.space("pixels", {**self.versions, "for": "training", **described})
        size = int(self.shorter**2 * USUAL_RATIO * self.spec.channels)
        return self.filled(StoredImages(space, finished=False), store, paths, self.shrink, size)

    def shrink(self, picture: DecodedImage) -> Image.Image:
        """Return a picture with its shorter side as long as training needs, never enlarged."""
        width, height = picture.size
        share = min(1.0, self.shorter / min(width, height))
        size = (round(width * share), round(height * share))
        return resize(picture.cutout(Region((0, 0, width, height), size)), size, self.spec.interpolation)

    def filled(
        self,
        stored: StoredImages,
        store: ImageStore,
        paths: Mapping[str, str],
        make: Callable[[DecodedImage], Image.Image],
        size: int,
    ) -> StoredImages:
        """Return stored images, after those that were missing have been made.

        Args:
            stored: Where they belong.
            store: Where they are read.
            paths: Of the images, by the digests of their content.
            make: A picture to what is stored.
            size: Bytes of an image, for checking that there is room.

        Raises:
            ConfigError: They do not fit into the cache.
            DataError: An image cannot be read.
        """
        if not stored.entries.missing(list(paths)):
            return stored
        with stored.space.locked():
            missing = stored.space.load().missing(list(paths))
            self.cache.check_room(size * len(missing), stored.space, "Pixels", "data.pixel_cache=false")
            for keys, arrays in self.packed(store, {key: paths[key] for key in missing}, make):
                stored.space.write(keys, arrays)
        self.cache.evict(keep=stored.space)
        return StoredImages(stored.space, finished=stored.finished)

    def packed(
        self, store: ImageStore, paths: Mapping[str, str], make: Callable[[DecodedImage], Image.Image]
    ) -> Iterator[tuple[list[str], dict[str, ShardArray]]]:
        """Yield keys and arrays of one file after the other, decoding on all cores."""

        def read(path: str) -> tuple[Size, Image.Image]:
            picture = store.open(path, self.spec.channels)
            return picture.size, make(picture)

        waiting: list[tuple[str, Size, ShardArray]] = []
        keys = list(paths)
        with ThreadPoolExecutor(cores()) as pool:
            for start in range(0, len(keys), _TOGETHER):
                part = keys[start : start + _TOGETHER]
                made = pool.map(read, [paths[key] for key in part])
                waiting += [(key, size, np.asarray(image)) for key, (size, image) in zip(part, made, strict=True)]
                if sum(pixels.nbytes for *_, pixels in waiting) >= _FILE_BYTES:
                    yield pack_images(waiting)
                    waiting = []
        if waiting:
            yield pack_images(waiting)


def pack_images(images: Sequence[tuple[str, Size, ShardArray]]) -> tuple[list[str], dict[str, ShardArray]]:
    """Return the keys of images, and arrays of where each begins, its shape, its original size, and all pixels."""
    keys, sizes, pixels = zip(*images, strict=True)
    lengths = np.array([values.size for values in pixels], dtype=np.int64)
    return list(keys), {
        "start": np.cumsum(lengths) - lengths,
        "shape": np.array([(*values.shape, 1)[:3] for values in pixels], dtype=np.int64),
        "size": np.array(sizes, dtype=np.int64),
        "pixels": np.concatenate([values.reshape(-1) for values in pixels]),
    }
