"""Images made on a GPU (data.device_pixels=true) beside those that worker processes make, on the same files and draws.

    python tests/benchmarks/device_pixels.py FOLDER --size 224 --workers 8 --json device_pixels.json

Both ways bring the augmented training batches of a folder of JPEGs to the GPU, in turn, so that a change of the
machine's load meets both; a number is the median of the rounds, the ratio that of the rounds' ratios. Differences are
those of the values, 0 to 255, of the first batches. What the network leaves of the GPU for it is `finetune benchmark`'s
to say.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from configured import settings_for

from finetune.config.settings.training_groups import Augment
from finetune.data.datamodule import ImageBatch, ImageData
from finetune.data.sources import folder
from finetune.data.splits import make_splits
from finetune.data.table import ImageTable
from finetune.data.transforms import InputSpec
from finetune.data.verification import verify_images
from finetune.runtime.device import cores
from finetune.training.throughput.throughput import interleave, median_ratio

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COMPARED = 4


def on_device(batch: ImageBatch, device: torch.device) -> torch.Tensor:
    """Return a batch's images on a device."""
    return batch["image"].to(device, non_blocking=True)


def rate(loader: Any, device: torch.device, rounds: "itertools.count[int]") -> float:
    """Return how many images a second of another epoch come to the device, after a batch that starts the workers."""
    loader.batch_sampler.set_epoch(next(rounds))
    batches = iter(loader)
    on_device(next(batches), device)
    wait(device)
    started, images = time.perf_counter(), 0
    for batch in batches:
        images += len(on_device(batch, device))
    wait(device)
    return images / (time.perf_counter() - started)


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def differences(usual: Any, made: Any, device: torch.device) -> tuple[float, float]:
    """Return the mean and the largest absolute difference of the values of a few batches, 0 to 255."""
    pairs = itertools.islice(zip(usual, made, strict=True), COMPARED)
    spread = 255 * torch.tensor(STD)[:, None, None]
    found = [((on_device(one, device) - on_device(other, device)).cpu() * spread).abs() for one, other in pairs]
    return float(torch.cat([part.flatten() for part in found]).mean()), max(float(part.max()) for part in found)


def measure(
    table: ImageTable, *, size: int, batch: int, workers: int, repeats: int, device: torch.device
) -> dict[str, float]:
    """Return the rates of both ways, their ratio, and how far apart their images are."""
    spec = InputSpec(3, size, size, MEAN, STD, "bicubic", 0.875, exact=False)
    build = partial(ImageData, table, spec, settings_for(Augment), batch_size=batch, workers=workers)
    usual, made = (build(device_pixels=on).loader("train", augmented=True) for on in (False, True))
    mean, most = differences(usual, made, device)
    ways = {
        name: partial(rate, loader, device, itertools.count(1))
        for name, loader in (("workers", usual), ("device", made))
    }
    found = interleave(ways, repeats)
    rates = {name: statistics.median(values) for name, values in found.items()}
    return {**rates, "ratio": median_ratio(found["device"], found["workers"]), "mean": mean, "max": most}


def main() -> None:
    """Measure a folder's images and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224, help="pixels that the weights expect")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=max(1, cores() - 1))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This measures a GPU, and none is here. Run it on a machine with CUDA.")
    table = make_splits(verify_images(folder(str(arguments.folder)), "skip"), val=0.1, test=0.1, seed=0)
    settings = {name: getattr(arguments, name) for name in ("size", "batch", "workers", "repeats")}
    device = torch.device("cuda")
    row = measure(table, **settings, device=device)
    name, memory = torch.cuda.get_device_name(device), torch.cuda.max_memory_allocated(device) / 1e9
    print(
        f"{name}, {len(table):,} files, {arguments.size} px, batches of {arguments.batch}, {arguments.workers} workers"
    )
    print(f"made by workers: {row['workers']:8.0f} images/s")
    print(f"made on the GPU: {row['device']:8.0f} images/s, {row['ratio']:.2f} times as many, {memory:.1f} GB at most")
    print(f"difference of values (0 to 255): {row['mean']:.2f} on average, {row['max']:.0f} at most")
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": name, "files": len(table), **settings, **row}, indent=2))


if __name__ == "__main__":
    main()
