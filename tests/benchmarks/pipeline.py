"""How many JPEGs a core reads in a second, by several ways to decode and resize them, and how far each is from timm's.

    python tests/benchmarks/pipeline.py FOLDER --size 224 --json pipeline.json

All ways take turns on the same files, with one thread; a number is the median of the rounds. An image is decoded, or
decoded and brought to what evaluation or training wants, normalised. Differences are those of the resized bytes, 0 to
255, to PIL's from the whole image. Files that are not RGB or that EXIF turns are left out, as not all know them.
"""

import argparse
import importlib.util
import io
import json
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.io import decode_jpeg
from torchvision.transforms import Resize
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from finetune.data.color_modes import orientation
from finetune.data.decoding import MARGIN, SCALES, Cutout, DecodedImage, Region
from finetune.data.pixel_cache import StoredPicture
from finetune.data.resizing import Scale, choose_region, resize

Pixels = npt.NDArray[np.uint8]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP_PCT = 0.875
SMALLEST_CROP = 0.35
TASKS = ("evaluation", "training")


@dataclass(frozen=True)
class Way:
    """A way to read an image.

    Attributes:
        decode: Bytes and the region that is needed, to something that holds its pixels.
        resize: That and the region, to bytes (H, W, 3).
    """

    decode: Callable[[bytes, Region], Any]
    resize: Callable[[Any, Region], Pixels]


def scale_for(region: Region) -> int:
    """Return the scale at which the product decodes a region."""
    left, top, right, bottom = region.box
    room = min((right - left) / region.size[0], (bottom - top) / region.size[1])
    return next((scale for scale in SCALES if room >= MARGIN * scale), 1)


def opened(data: bytes) -> Image.Image:
    """Return an image whose header has been read."""
    return Image.open(io.BytesIO(data))


def with_pil(data: bytes, region: Region) -> Image.Image:
    """Decode the whole image with PIL."""
    image = opened(data)
    image.load()
    return image


def resized_by_pil(image: Image.Image, region: Region) -> Pixels:
    """Crop and resize as timm does."""
    return np.asarray(image.crop(region.box).resize(region.size, Image.Resampling.BICUBIC))


def cutout(data: bytes, region: Region) -> Cutout:
    """Decode as the product does."""
    return DecodedImage.open(data, 3, name="it").cutout(region)


def boxed(image: Image.Image, region: Region, scale: int) -> Pixels:
    """Resize the region of an image that was decoded at a scale with PIL."""
    box = tuple(min(value / scale, bound) for value, bound in zip(region.box, image.size * 2, strict=True))
    return np.asarray(image.resize(region.size, Image.Resampling.BICUBIC, box=box))


def resized_by_v2(pixels: torch.Tensor, region: Region) -> Pixels:
    """Crop and resize (3, H, W) with torchvision."""
    left, top, right, bottom = map(int, region.box)
    size = [region.size[1], region.size[0]]
    part = v2.resized_crop(
        pixels, top, left, bottom - top, right - left, size, InterpolationMode.BICUBIC, antialias=True
    )
    return part.permute(1, 2, 0).numpy()


def ways(size: int) -> dict[str, Way]:
    """Return the ways that are installed, the reference first, and say what to install for the others."""
    found = {
        "PIL whole, PIL (timm)": Way(with_pil, resized_by_pil),
        "PIL scaled, PIL": Way(cutout, by_box),
        "PIL scaled, torch (finetune)": Way(cutout, lambda it, region: np.asarray(resize(it, region.size, "bicubic"))),
        "pixel cache": Way(*stored_way(size)),
        "torchvision, v2": Way(
            lambda data, _: decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)), resized_by_v2
        ),
    }
    for name, package, add in (
        ("simplejpeg", "simplejpeg", simplejpeg_ways),
        ("cv2", "opencv-python-headless", cv2_ways),
    ):
        if importlib.util.find_spec(name):
            found |= add()
        else:
            print(f"{name} is left out: pip install {package}", file=sys.stderr)
    return found


def by_box(it: Cutout, region: Region) -> Pixels:
    """Resize the region of a cutout with PIL."""
    return np.asarray(it.image.resize(region.size, Image.Resampling.BICUBIC, box=it.box))


def stored_way(size: int) -> tuple[Callable[[bytes, Region], Any], Callable[[Any, Region], Pixels]]:
    """Return how images are read that were stored before: whole for training, resized for evaluation."""
    shorter = 32 * math.ceil(size / math.sqrt(SMALLEST_CROP) / 32)
    kept: dict[tuple[bytes, bool], Pixels] = {}

    def decode(data: bytes, region: Region) -> StoredPicture:
        original = opened(data).size
        finished = min(region.size) == int(size / CROP_PCT)
        if (data, finished) not in kept:
            share = min(1.0, shorter / min(original))
            small = region.size if finished else (round(original[0] * share), round(original[1] * share))
            whole = Region((0, 0, *original), small)
            kept[data, finished] = np.asarray(resize(cutout(data, whole), small, "bicubic"))
        return StoredPicture(Image.fromarray(kept[data, finished]), original)

    def read(picture: StoredPicture, region: Region) -> Pixels:
        if picture.image.size == region.size:
            return np.asarray(picture.image)
        return np.asarray(resize(picture.cutout(region), region.size, "bicubic"))

    return decode, read


def simplejpeg_ways() -> dict[str, Way]:
    """Return the ways that decode with simplejpeg."""
    import simplejpeg

    def scaled(data: bytes, region: Region) -> tuple[Image.Image, int]:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        scale = scale_for(region)
        least = {"min_height": height // scale, "min_width": width // scale, "min_factor": 1} if scale > 1 else {}
        return Image.fromarray(simplejpeg.decode_jpeg(data, **least)), scale

    def whole(data: bytes, region: Region) -> torch.Tensor:
        return torch.from_numpy(simplejpeg.decode_jpeg(data)).permute(2, 0, 1)

    return {
        "simplejpeg, v2": Way(whole, resized_by_v2),
        "simplejpeg scaled, PIL": Way(scaled, lambda it, region: boxed(it[0], region, it[1])),
    }


def cv2_ways() -> dict[str, Way]:
    """Return the ways that use OpenCV; its reduced images are cropped at whole pixels."""
    import cv2

    cv2.setNumThreads(1)
    flags = {
        1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8
    }  # fmt: skip

    def decode(data: bytes, scale: int) -> tuple[Any, int]:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags[scale])
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), scale

    def area(it: tuple[Any, int], region: Region) -> Pixels:
        left, top, right, bottom = (round(value / it[1]) for value in region.box)
        resized: Pixels = cv2.resize(it[0][top:bottom, left:right], region.size, interpolation=cv2.INTER_AREA)
        return resized

    return {
        "cv2, area": Way(lambda data, _: decode(data, 1), area),
        "cv2 scaled, area": Way(lambda data, region: decode(data, scale_for(region)), area),
    }


def read_files(folder: Path, limit: int) -> list[bytes]:
    """Return the bytes of a folder's plain RGB JPEGs, nested ones too."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    contents = []
    for path in files:
        data = path.read_bytes()
        image = opened(data)
        if image.mode == "RGB" and orientation(image) is None:
            contents.append(data)
    if not contents:
        sys.exit(f"There is no RGB JPEG under {folder}. Name another folder.")
    return contents[:: max(1, len(contents) // limit)][:limit]


def regions_of(files: Sequence[bytes], size: int) -> dict[str, list[Region]]:
    """Return of each file the region that evaluation and that training resizes, as timm chooses them."""
    shorter = Resize(int(size / CROP_PCT))
    crop = RandomResizedCropAndInterpolation(size, scale=(SMALLEST_CROP, 1.0), interpolation="bicubic")
    random.seed(0)
    sizes = [opened(data).size for data in files]
    return {
        "evaluation": [choose_region(shorter, size) for size in sizes],
        "training": [choose_region(crop, size) for size in sizes],
    }


def timed(files: Sequence[bytes], regions: Sequence[Region], work: Callable[[bytes, Region], object]) -> float:
    """Return how many files a core works on in a second."""
    started = time.process_time()
    for data, region in zip(files, regions, strict=True):
        work(data, region)
    return len(files) / (time.process_time() - started)


def measure(files: Sequence[bytes], size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the rates and differences of each way."""
    regions = regions_of(files, size)
    scale = Scale(MEAN, STD)
    found = ways(size)
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in found}
    for _ in range(rounds):
        for name, way in found.items():
            rows[name].setdefault("decode", []).append(timed(files, regions["training"], way.decode))
            for task in TASKS:

                def work(data: bytes, region: Region, way: Way = way) -> torch.Tensor:
                    pixels = way.resize(way.decode(data, region), region)
                    top, left = ((extent - size) // 2 for extent in pixels.shape[:2])
                    return scale(Image.fromarray(pixels[top : top + size, left : left + size]))

                rows[name].setdefault(task, []).append(timed(files, regions[task], work))
    rates = {name: {key: median(values) for key, values in row.items()} for name, row in rows.items()}
    return {name: rates[name] | differences(files, regions, way, found) for name, way in found.items()}


def differences(
    files: Sequence[bytes], regions: dict[str, list[Region]], way: Way, found: dict[str, Way]
) -> dict[str, float]:
    """Return the mean and the largest absolute difference of a way's bytes to the reference, for both tasks."""
    reference = next(iter(found.values()))
    result = {}
    for task in TASKS:
        pairs = zip(files, regions[task], strict=True)
        made = [[each.resize(each.decode(*pair), pair[1]).astype(int) for each in (way, reference)] for pair in pairs]
        absolute = [np.abs(one - other) for one, other in made]
        result |= {f"{task} mean": float(np.mean([one.mean() for one in absolute]))}
        result |= {f"{task} max": float(max(one.max() for one in absolute))}
    return result


def main() -> None:
    """Measure a folder's images and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224, help="pixels that the weights expect")
    parser.add_argument("--limit", type=int, default=40, help="number of files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = read_files(arguments.folder, arguments.limit)
    rows = measure(files, arguments.size, arguments.rounds)
    pixels = median(opened(data).width * opened(data).height for data in files) / 1e6
    print(f"{len(files)} files of {pixels:.1f} megapixels, {arguments.size} px, {torch.get_num_threads()} thread")
    print(
        f"{'images per second and core':30} {'decode':>8} {'evaluation (mean, max)':>26} {'training (mean, max)':>26}"
    )
    for name, row in rows.items():
        cells = [f"{row[task]:8.0f} ({row[task + ' mean']:.2f}, {row[task + ' max']:3.0f})" for task in TASKS]
        print(f"{name:30} {row['decode']:8.0f} {cells[0]:>26} {cells[1]:>26}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"files": len(files), "megapixels": pixels, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
