"""How well an audit finds labels that were turned on purpose.

usage: label_errors.py [FOLDER] [--seeds 3] [--share 0.05]     a folder per class; the bundled digits without one

For each seed it turns a share of the labels into another class, drawn at random, and audits the images. It prints the
precision among as many images as were turned (which is the recall there too), and precision and recall of those that
are called likely mislabelled; then the means with their 95 % intervals.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t
from sklearn.datasets import load_digits

Labelled = list[tuple[Path, str]]


def collect(folder: Path | None, work: Path) -> Labelled:
    """Return images and their labels."""
    if folder is not None:
        files = sorted(file for file in folder.glob("**/*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
        return [(file.absolute(), file.parent.name) for file in files]
    from PIL import Image

    digits = load_digits()
    found = []
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(work / f"{number:04d}.png")
        found.append((work / f"{number:04d}.png", str(label)))
    return found


def turn(images: Labelled, share: float, seed: int) -> tuple[list[str], set[str]]:
    """Return labels of which a share was turned, and the images of those."""
    generator = np.random.default_rng(seed)
    classes = sorted({label for _, label in images})
    labels = [label for _, label in images]
    chosen = generator.permutation(len(images))[: round(share * len(images))]
    for row in chosen:
        labels[row] = str(generator.choice([name for name in classes if name != labels[row]]))
    return labels, {str(images[row][0]) for row in chosen}


def measure(images: Labelled, share: float, seed: int, work: Path) -> tuple[float, float, float]:
    """Return precision among as many as were turned, and precision and recall of those that are flagged."""
    labels, turned = turn(images, share, seed)
    table = work / f"labels{seed}.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows((str(path), label) for (path, _), label in zip(images, labels, strict=True))
    words = [
        "data=csv",
        f"data.path={table}",
        f"audit.output={work}/audit{seed}",
        f"seed={seed}",
        f"cache.dir={work}/kept",
    ]
    subprocess.run([sys.executable, "-m", "finetune", "audit", *words], check=True, stdout=subprocess.DEVNULL)
    with (work / f"audit{seed}" / "audit.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows.sort(key=lambda row: float(row["label_quality"] or 1))
    first = {row["path"] for row in rows[: len(turned)]}
    flagged = {row["path"] for row in rows if "likely_mislabelled" in row["issues"]}
    assert json.loads((work / f"audit{seed}" / "audit.json").read_text())["counts"]["likely_mislabelled"] == len(
        flagged
    )
    hits = len(flagged & turned)
    return len(first & turned) / len(turned), hits / max(1, len(flagged)), hits / len(turned)


def told(values: Sequence[float]) -> str:
    """Return a mean with its interval."""
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {half:.3f}"


def main() -> None:
    """Print a line for each seed, and the means."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.05)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        images = collect(asked.folder, Path(name))
        print("seed  precision at the number turned  flagged: precision, recall")
        found = [measure(images, asked.share, seed, Path(name)) for seed in range(asked.seeds)]
    for seed, (first, precision, recall) in enumerate(found):
        print(f"{seed:4}  {first:.3f}                              {precision:.3f}, {recall:.3f}")
    columns = list(zip(*found, strict=True))
    print(f"mean  {told(columns[0])}  {told(columns[1])}, {told(columns[2])}  ({len(images)} images)")


if __name__ == "__main__":
    main()
