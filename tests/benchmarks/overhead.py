"""What Lightning's trainer with bar, logging, metrics and moving average costs beside a loop of a few lines.

Both train the same network on the same batches in memory, in turn, so that a change of the machine's load meets both.

usage: overhead.py [--model NAME] [--size PIXELS] [--batch IMAGES] [--batches N] [--repeats N] [--json FILE]
"""

import argparse
import itertools
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from configured import settings_for
from pytorch_lightning.callbacks import EMAWeightAveraging
from rich.console import Console
from torch.utils.data import DataLoader

from finetune.config.settings.phases import Phase
from finetune.config.settings.training_groups import Augment, OptimizerSettings, Schedule, TrainerSettings
from finetune.data.datamodule import ImageData
from finetune.data.sampling import EvalBatches
from finetune.data.sources import digits
from finetune.models.network import build_network
from finetune.runtime.allocator import keep_freed_memory
from finetune.runtime.log_filters import quieten
from finetune.training.callbacks.progress import PhaseProgressBar
from finetune.training.fit import Recipe
from finetune.training.losses import CrossEntropy
from finetune.training.throughput.throughput import PhaseBenchmark, interleave, median_ratio


class Repeated(DataLoader[Any]):
    """The same batch again and again."""

    def __init__(self, batch: dict[str, torch.Tensor], count: int) -> None:
        """Give a batch `count` times."""
        super().__init__(list(range(count)), batch_sampler=EvalBatches(np.arange(count), 1))
        self.batch = batch
        self.count = count

    def __iter__(self) -> Any:
        """Yield the batch."""
        return itertools.repeat(self.batch, self.count)

    def __len__(self) -> int:
        """Return how often."""
        return self.count


def build_subject(options: argparse.Namespace, folder: Path) -> PhaseBenchmark:
    """Return full fine-tuning of a network, with metrics, history and logging at the default interval."""
    table = digits()
    frame = table.frame.assign(split=np.where(np.arange(len(table)) < 1500, "train", "val"))
    table = replace(table, frame=frame)
    network = build_network(options.model, num_classes=10, weights="none", image_size=options.size)
    images = ImageData(table, network.spec, settings_for(Augment), batch_size=options.batch)
    recipe = Recipe(
        CrossEntropy(0.1),
        settings_for(OptimizerSettings),
        settings_for(Schedule, "cosine", 0.1, 0.0),
        settings_for(TrainerSettings, devices=1),
    )
    phase = Phase("full", "all", batchnorm="train")
    return PhaseBenchmark(network, phase, images, recipe, batches=options.batches, folder=folder)


def main() -> None:
    """Measure, print the ratio, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    quieten()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        subject = build_subject(options, Path(folder))
        batch = next(subject.endless())
        bar = Console(file=open(Path(folder) / "bar", "w"), force_terminal=True)  # noqa: SIM115 - lives as long as the process

        def trainer() -> float:
            callbacks = [EMAWeightAveraging(decay=0.99), PhaseProgressBar(bar)]
            return subject.timed_run(callbacks, Repeated(batch, options.batches + 1))

        found = interleave({"bare": lambda: subject.compute(batch), "trainer": trainer}, options.repeats)
    ratios = sorted(run / bare for run, bare in zip(found["trainer"], found["bare"], strict=True))
    document = {
        "options": {name: str(value) for name, value in vars(options).items() if name != "json"},
        "device": str(subject.device),
        "bare": statistics.median(found["bare"]),
        "trainer": statistics.median(found["trainer"]),
        "ratio": median_ratio(found["trainer"], found["bare"]),
        "ratios": ratios,
    }
    print(f"bare loop {document['bare']:.1f} images/s, trainer {document['trainer']:.1f} images/s")
    print(f"trainer / bare loop: median {document['ratio']:.3f} of {[round(ratio, 3) for ratio in ratios]}")
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
