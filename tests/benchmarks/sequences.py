"""How well each head tells digits that count up from the very same digits counting down.

usage: sequences.py [HEAD ...] [--seeds 3]     all heads without one

It writes clips of four to seven of scikit-learn's digits, each forwards and backwards, with no image on two sides of a
split, and trains each head on the frozen default network. It prints the mean test accuracy of the seeds with the 95 %
t-interval of that mean. A head that takes no notice of the order gives both clips of a pair the same answer, so it
stays at one half.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from scipy.stats import t
from sklearn.datasets import load_digits

from finetune.config.compose import conf_dir, register
from finetune.config.resolve import resolve
from finetune.config.settings.roots import TrainSettings
from finetune.features.extract import FeatureSource
from finetune.features.feature_datamodule import FeatureData
from finetune.runtime.device import DevicePass
from finetune.training.build import build_recipe, load_images, load_network, load_table
from finetune.training.head_trainer import HeadLoop

HEADS = ("gru", "lstm", "tcn", "attention", "mean_pool")
PAIRS = {"train": 200, "val": 50, "test": 75}
SHARES = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}


def write_clips(root: Path) -> None:
    """Write root/<split>/<up or down>/<clip>/<frame>."""
    bundled, generator = load_digits(), np.random.default_rng(0)
    pixels = np.rint(bundled.images * (255 / 16)).astype(np.uint8)
    of_digit = [np.flatnonzero(bundled.target == digit) for digit in range(10)]
    for split, pairs in PAIRS.items():
        low, high = SHARES[split]
        own = [rows[int(low * len(rows)) : int(high * len(rows))] for rows in of_digit]
        for clip in range(pairs):
            length = int(generator.integers(4, 8))
            start = int(generator.integers(0, 11 - length))
            rows = [int(generator.choice(own[digit])) for digit in range(start, start + length)]
            for name, order in (("up", rows), ("down", rows[::-1])):
                place = root / split / name / f"{clip:03d}"
                place.mkdir(parents=True)
                for number, row in enumerate(order):
                    Image.fromarray(pixels[row]).save(place / f"{number}.png")


class Clips:
    """The clips and their features, which all heads share."""

    def __init__(self, folder: Path) -> None:
        """Pass each frame through the default network once."""
        register()
        self.root = folder
        settings = self.settings(HEADS[0], 0)
        self.table = load_table(settings.data)
        self.network = load_network(settings, self.table)
        recipe = build_recipe(settings, self.table)
        images = load_images(settings, self.table, self.network)
        source = FeatureSource(self.network, images, recipe.features, DevicePass(torch.device("cpu")))
        self.data = FeatureData(images, batch_size=recipe.head_batch_size, seed=0, settings=recipe.features)
        self.data.found = {split: source.features(self.table.rows(split)) for split in PAIRS}

    def settings(self, head: str, seed: int) -> TrainSettings:
        """Return the configuration of a run."""
        words = ["data=sequences", f"data.root={self.root}", "data.image_size=64", f"head={head}", f"seed={seed}"]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return resolve(compose("train", [*words, "strategy=frozen", "cache.enabled=false"]), TrainSettings)

    def accuracy(self, head: str, seed: int) -> float:
        """Train a head as a run does, and return its test accuracy."""
        settings = self.settings(head, seed)
        pl.seed_everything(seed, verbose=False)
        network = load_network(settings, self.table)
        recipe = build_recipe(settings, self.table)
        self.data.images = load_images(settings, self.table, network)
        HeadLoop(network, self.data).fit(settings.strategy, recipe, mode=settings.mode)
        rows = self.table.rows("test")
        with torch.no_grad():
            said = network.head.eval()(self.data.found["test"].take(rows)).argmax(1).numpy()
        return float((said == self.table.targets()[rows]).mean())


def main() -> None:
    """Measure all heads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", nargs="*", default=HEADS)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder)
        clips = Clips(folder)
        for head in asked.heads:
            found = np.array([clips.accuracy(head, seed) for seed in range(asked.seeds)])
            half = t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else np.nan
            print(f"{head:<10} {found.mean():.3f} ± {half:.3f}   {', '.join(f'{value:.3f}' for value in found)}")


if __name__ == "__main__":
    main()
