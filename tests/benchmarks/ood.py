"""How well each score tells images unlike those of training from the run's own test images.

usage: ood.py [FOLDER UNLIKE] [--densities knn mahalanobis pca] [--seeds 3] [--strategy frozen] [--data WORD ...]

Without folders the digits 0 to 7 are trained on, and 8 and 9 are unlike. With them, FOLDER is trained on (a folder per
class) and UNLIKE holds the others. For each seed and each density a run is trained and evaluated against the unlike
images; AUROC, FPR at 95 % TPR and the accepted share of the run's own test images are printed as means over the seeds
with the 95 % t-interval of that mean. Scores of logits are those of the first density's runs. Splits vary with the
seed, and all runs share cached features.
"""

import argparse
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

DENSITIES = ("knn", "mahalanobis", "pca")
LOGITS = ("energy", "msp")
UNLIKE = ("8", "9")


def write_digits(work: Path) -> tuple[Path, Path]:
    """Write the digits that are trained on, a folder per class, and the others; return both folders."""
    from PIL import Image

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = work / ("unlike" if str(label) in UNLIKE else "known") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(folder / f"{number:04d}.png")
    return work / "known", work / "unlike"


def run(work: Path, *words: str) -> None:
    """Run the command."""
    done = subprocess.run([sys.executable, "-m", "finetune", *words], cwd=work, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def measure(
    known: Path, unlike: Path, kind: str, seed: int, work: Path, words: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return AUROC, FPR at 95 % TPR and, of the run's own score, the accepted share, by score."""
    place = work / f"{kind}{seed}"
    data = ["data=folder", f"data.root={known}", *words]
    quick = ["logger=none", "report=false", "explain.images=0", f"cache.dir={work}/kept", f"hydra.run.dir={place}"]
    run(work, *data, *quick, f"ood={kind}", f"seed={seed}", f"data.splits.seed={seed}", "bootstrap=0")
    run(work, "evaluate", f"run={place}", f"ood_data={unlike}", "bootstrap=0", "report=false")
    found = json.loads(next(place.glob("evaluations/*/metrics.json")).read_text())["ood"]
    scores = {name: {key: each["value"] for key, each in row.items()} for name, row in found["scores"].items()}
    scores[kind]["accepted"] = found["accepted"]["own"]["value"]
    return scores


def told(values: Sequence[float]) -> str:
    """Return a mean with its interval."""
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {half:.3f}"


def main() -> None:
    """Print a line for each way of telling."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("unlike", type=Path, nargs="?")
    parser.add_argument("--densities", nargs="*", default=DENSITIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strategy", default="frozen")
    parser.add_argument("--data", nargs="*", default=[], help="further settings, such as data.image_size=64")
    asked = parser.parse_args()
    if (asked.folder is None) != (asked.unlike is None):
        parser.error("name two folders, or none")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folders = (asked.folder, asked.unlike) if asked.folder is not None else write_digits(work)
        known, unlike = (folder.absolute() for folder in folders)
        size = (
            ["data.image_size=64", "data.horizontal_flip=0", "data.smallest_crop=0.8"] if asked.folder is None else []
        )
        words = [f"strategy={asked.strategy}", *size, *asked.data]
        print(f"{'score':12}  AUROC          FPR at 95 % TPR  accepted, test")
        for kind in asked.densities:
            found = [measure(known, unlike, kind, seed, work, words) for seed in range(asked.seeds)]
            for score in (kind, *(LOGITS if kind == asked.densities[0] else ())):
                columns = [told([row[score][key] for row in found]) for key in found[0][score]]
                print(f"{score:12}  {'    '.join(columns)}", flush=True)


if __name__ == "__main__":
    main()
