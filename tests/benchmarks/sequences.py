"""How well each head tells digits that count up from the very same digits counting down.

usage: sequences.py [HEAD ...] [--seeds 3]     all heads without one

It writes clips of four to seven of scikit-learn's digits, each forwards and backwards, with no image on two sides of a
split, and trains each head on the frozen default network. It prints the mean test accuracy of the seeds with the 95 %
t-interval of that mean. A head that takes no notice of the order gives both clips of a pair the same answer, so it
stays at one half.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import t
from sklearn.datasets import load_digits

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


def accuracy(folder: Path, head: str, seed: int) -> float:
    """Train a head, and return its test accuracy."""
    run = folder / f"{head}{seed}"
    command = [
        sys.executable, "-m", "finetune", "data=sequences", f"data.root={folder / 'clips'}", "data.image_size=64",
        f"head={head}", "strategy=frozen", f"seed={seed}", "logger=none", "report=false", "bootstrap=0",
        f"hydra.run.dir={run}", f"cache.dir={folder / 'cache'}",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return float(json.loads((run / "metrics.json").read_text())["test"]["accuracy"]["value"])


def main() -> None:
    """Measure all heads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", nargs="*", default=HEADS)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder / "clips")
        for head in asked.heads:
            found = np.array([accuracy(folder, head, seed) for seed in range(asked.seeds)])
            half = t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else np.nan
            print(f"{head:<10} {found.mean():.3f} ± {half:.3f}   {', '.join(f'{value:.3f}' for value in found)}")


if __name__ == "__main__":
    main()
