"""The accuracy of `recipe=auto` beside fastai, Hugging Face's Trainer, AutoGluon and torchgeo-style frozen training.

All start from the same backbone with the same bundled weights, train on the same images of the same table (path, label,
split, and piece where there are pieces, of which ours alone can make use), at the same size, in the same seconds of one
CPU thread, and are scored once on the same test images. Each seed deals all images out anew, to training, validation
and test (a quarter), the same for all methods. Each peer does what its documentation tells; its epochs are what a few
timed batches say fits into the time (at least one), so that imports, the timing itself and the test images are not
counted. Ours is given the time as `recipe.budget`. Seconds of the processor are what is measured, so other programs on
the machine change nothing. Each finished run is a line in a file, and what is there is not run again.

AutoGluon asks for versions that exclude this project's, so it needs an environment of its own: `--autogluon PYTHON`.

usage: accuracy.py digits|FOLDER --file FILE.jsonl [--seconds N] [--size PIXELS] [--pieces N] [--methods ours,...]
       accuracy.py --table FILE.jsonl [FILE.jsonl ...]
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

METHODS = ("ours", "fastai", "transformers", "transformers_tuned", "torchgeo", "autogluon")
RESULT = "result: "
VAL, TEST = 0.15, 0.25
FIRST = 100  # seed of the first split
DIGITS = {"flip": 0.0, "smallest_crop": 0.8}
# two-sided 95 % quantiles of Student's t with n - 1 degrees of freedom
T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


@dataclass(frozen=True)
class Task:
    """What all methods are given.

    Attributes:
        table: CSV with path, label and split of each image, with {seed} in its name.
        network: Folder with the backbone's weights and what it is, as AutoGluon reads them.
        size: Pixels of a side.
        flip: Probability of a mirror image.
        smallest_crop: Least share of an image's area that a training crop shows.
        seconds: Of one CPU thread, for training with its validation.
    """

    table: str
    network: str
    size: int
    flip: float
    smallest_crop: float
    seconds: float


def make_tables(images: str, pieces: int, seeds: int, folder: Path) -> str:
    """Write a table of a set of images for each seed, its test split anew each time, and return their name.

    No piece crosses two splits.
    """
    import pandas as pd

    from finetune.data.sources import folders
    from finetune.data.splits import make_splits
    from finetune.data.table import object_column

    if images == "digits":
        images = str(draw_digits(folder / "digits"))
    table = folders.folder(images)
    table = replace(table, frame=table.frame.assign(split=None))
    group = None
    if pieces:
        numbers = pd.Series([int(re.findall(r"\d+", Path(name).stem)[-1]) for name in table.frame["path"]])
        ordered = numbers.sort_values()
        names = [f"piece {number}" for number in (ordered.diff() > pieces).cumsum().sort_index().tolist()]
        table = replace(table, frame=table.frame.assign(piece=object_column(names)), groups=("piece",))
        group = "piece"
    labels = [table.labels[target] for target in table.targets()]
    path = folder / "table-{seed}.csv"
    for seed in range(seeds):
        dealt = make_splits(table, val=VAL, test=TEST, seed=FIRST + seed, group=group)
        columns = {"path": dealt.frame["path"], "label": labels, "split": dealt.frame["split"]}
        columns |= {name: dealt.frame[name] for name in dealt.groups}
        pd.DataFrame(columns).to_csv(str(path).format(seed=seed), index=False)
    return str(path)


def write_network(folder: Path, size: int) -> str:
    """Write the backbone's weights as AutoGluon reads them, and return their folder."""
    import torch

    from finetune.models.network import build_network

    network = build_network("tf_efficientnet_lite0", num_classes=2, weights="bundled")
    folder.mkdir()
    torch.save(network.backbone.state_dict(), folder / "pytorch_model.bin")
    config = {"architecture": "tf_efficientnet_lite0", "num_features": network.num_features,
              "input_size": [3, size, size], "mean": [0.5] * 3, "std": [0.5] * 3}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def draw_digits(folder: Path) -> Path:
    """Write scikit-learn's digits as a folder per class."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        target = folder / str(label) / f"{number:04}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9375).round().astype("uint8")).resize((64, 64), Image.Resampling.BICUBIC).save(
            target
        )
    return folder


def finished(file: Path) -> list[dict[str, Any]]:
    """Return the runs that a file holds."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def measure(method: str, task: Task, seeds: list[int], python: str) -> Iterator[dict[str, Any]]:
    """Train by one method on one thread, in a process of its own for each seed, and yield what came of each."""
    folder = Path(__file__).parent
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": f"{folder.parent.parent}:{folder}",
    }  # fmt: skip
    command = [python, str(folder / "accuracy_peers.py"), method, json.dumps(asdict(task)), *map(str, seeds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(RESULT):
                yield json.loads(line.removeprefix(RESULT))
    if process.returncode:
        raise SystemExit(f"{method} failed. Install the peers: tests/benchmarks/peers.txt")


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half of its 95 % t-interval."""
    half = T[len(values)] * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.mean(values), half


def report(files: list[Path]) -> None:
    """Print a row for each method, a column for each set, and the mean over the sets as the last."""
    sets = [file.stem for file in files]
    runs = {file.stem: finished(file) for file in files}
    methods = list(dict.fromkeys(run["method"] for found in runs.values() for run in found))
    print("| method | " + " | ".join(sets) + " | mean |\n|" + " --- |" * (len(sets) + 2))
    for method in methods:
        cells, means = [], []
        for name in sets:
            own = [run for run in runs[name] if run["method"] == method]
            if not own:
                cells.append("-")
                continue
            mean, half = interval([run["accuracy"] for run in own])
            means.append(mean)
            seconds = statistics.mean(run["seconds"] for run in own)
            cells.append(
                f"{mean:.3f} ± {half:.3f} (F1 {statistics.mean(run['f1'] for run in own):.3f}, {seconds:.0f} s)"
            )
        total = f"{statistics.mean(means):.4f}" if len(means) == len(sets) else "-"
        print(f"| {method} | " + " | ".join(cells) + f" | {total} |")


def main() -> None:
    """Run what a file lacks, one process after the other, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="?", help="digits, or a folder of class folders")
    parser.add_argument("--file", type=Path, help="a JSON line per finished run")
    parser.add_argument("--table", type=Path, nargs="+", help="print these files and run nothing")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--pieces", type=int, default=0, help="numbers in file names so close are of one piece")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--autogluon", help="the Python of an environment with autogluon.multimodal")
    options = parser.parse_args()
    if options.table:
        report(options.table)
        return
    if options.images is None or options.file is None:
        parser.error("name the images and --file")
    of_set = DIGITS if options.images == "digits" else {"flip": 0.5, "smallest_crop": 0.35}
    size = options.size or (64 if options.images == "digits" else 224)
    done = {(run["method"], run["seed"]) for run in finished(options.file)}
    methods = options.methods.split(",")
    if options.autogluon is None and "autogluon" in methods:
        methods.remove("autogluon")
        print("AutoGluon is left out: no --autogluon PYTHON.", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = make_tables(options.images, options.pieces, options.seeds, folder)
        task = Task(table, write_network(folder / "network", size), size, seconds=options.seconds, **of_set)
        for method in methods:
            seeds = [seed for seed in range(options.seeds) if (method, seed) not in done]
            python = options.autogluon if method == "autogluon" else sys.executable
            for found in measure(method, task, seeds, python) if seeds else ():
                with options.file.open("a") as lines:
                    lines.write(json.dumps({"method": method, **found}) + "\n")
    report([options.file])


if __name__ == "__main__":
    main()
