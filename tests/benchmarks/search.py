"""What searching gains: pruned TPE beside random search at the same cost, and head-only trials beside ordinary ones.

usage: search.py [--seeds 5] [--trials 16] [--epochs 6]     on the bundled digits
       search.py --head FOLDER [--trials 300] [--runs 30]   on photos, whose features are computed first

The first prints, for each seed, the best validation score that random search and that TPE with pruning have found.
Random search runs the given trials whole; TPE has as many epochs, and trials that are cut short leave it more of them.
The second prints how long the head-only trials take in one process, and the best score beside that of the best of some
full-process trials.
"""

import argparse
import csv
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from forked import serving
from scipy.stats import t

# a small network without pretraining, half of the images for validation, and settings that mostly do not suit it: so
# that there is something to be found, and a score that shows it
LIGHT = ["model=timm", "model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "strategy=full",
         "data.splits.val=0.5", "data.splits.test=0.2", "bootstrap=0", "logger=none", "sweep.page=false"]  # fmt: skip
SPACE = [
    "optimizer.lr=tag(log,interval(1e-6,1.0))", "optimizer.weight_decay=tag(log,interval(1e-4,1.0))",
    "strategy.layer_decay=interval(0.3,1.0)", "loss.label_smoothing=interval(0.0,0.5)",
    "head.dropout=interval(0.0,0.8)",
]  # fmt: skip
PRUNED = ["sweep=tpe", "sweep.sampler_options.n_startup_trials=5", "sweep.pruner=median",
          "+sweep.pruner_options.n_startup_trials=4", "+sweep.pruner_options.n_warmup_steps=1"]  # fmt: skip


def sweep(folder: Path, *words: str, program: Sequence[str] = ()) -> Path:
    """Run a sweep and return its folder; a program starts its trials in place of the usual one."""
    code = "import sys; from finetune.config.compose import register; from finetune.commands.sweep import run_sweep; "
    code += f"register(); sys.exit(run_sweep(['--config-name', 'sweep', *sys.argv[1:]], {tuple(program)!r}))"
    start = ["-c", code] if program else ["-m", "finetune", "sweep"]
    command = [sys.executable, *start, *words, f"sweep.folder={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (record,) = folder.glob("*/*/sweep.json")
    return record.parent


def best(folder: Path) -> float:
    """Return the best score of a sweep."""
    (found,) = json.loads((folder / "sweep.json").read_text())["best"]
    return float(next(iter(found["values"].values())))


def trials(folder: Path) -> list[tuple[int, float]]:
    """Return the epochs that each trial ran, in order, and its score; that of a pruned one is minus infinity."""
    with (folder / "sweep.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["trial"]))
    found = []
    for row in rows:
        with (folder / "trials" / f"{int(row['trial']):04d}" / "metrics.csv").open() as file:
            epochs = len({line["epoch"] for line in csv.DictReader(file) if line["val/accuracy"]})
        found.append((epochs, float(row["val/accuracy"] or "-inf") if row["state"] == "complete" else float("-inf")))
    return found


def within(found: Sequence[tuple[int, float]], budget: int) -> tuple[float, int, int]:
    """Return the best score of the trials that have ended within so many epochs, their number and their epochs."""
    spent = list(itertools.accumulate(epochs for epochs, _ in found))
    number = sum(total <= budget for total in spent)
    return max(score for _, score in found[:number]), number, spent[number - 1]


def compare(seeds: int, number: int, epochs: int) -> None:
    """Print the table of random search and pruned TPE, each with the epochs that random search takes."""
    gains, budget = [], number * epochs
    print("seed  random (trials)  pruned TPE (trials)  epochs")
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as name, serving(Path(name)) as program:
            common = [*LIGHT, *SPACE, f"strategy.epochs={epochs}", f"sweep.seed={seed}", f"cache.dir={name}/cache"]
            plain, pruned = (
                within(trials(sweep(Path(name) / kind, *common, *words, program=program)), budget)
                for kind, words in (
                    ("random", ["sweep=random", f"sweep.trials={number}"]),
                    ("tpe", [*PRUNED, f"sweep.trials={2 * number}"]),
                )
            )
        gains.append(pruned[0] - plain[0])
        print(
            f"{seed:4}  {plain[0]:.4f} ({plain[1]})      {pruned[0]:.4f} ({pruned[1]})          "
            f"{plain[2]} and {pruned[2]}",
            flush=True,
        )
    half = 0.0 if seeds < 2 else t.ppf(0.975, seeds - 1) * statistics.stdev(gains) / seeds**0.5
    print(f"TPE found {statistics.mean(gains):+.4f} more in the mean of {seeds} seeds (95 % interval ± {half:.4f})")


def heads(root: Path, number: int, runs: int) -> None:
    """Print how long head-only trials take, and what they find beside ordinary ones."""
    images = ["data=folder", f"data.root={root.absolute()}", "logger=none", "sweep.page=false"]
    with tempfile.TemporaryDirectory() as name:
        cache = f"cache.dir={name}/cache"
        subprocess.run([sys.executable, "-m", "finetune", "features", *images[:2], cache], check=True)
        words = [*images, cache, "strategy=frozen", "space=head_lr"]
        for count, what, extra in (
            (number, "head-only trials in one process", []),
            (runs, "trials with a process each", ["sweep.in_process=false"]),
        ):
            if count:
                started = time.monotonic()
                folder = sweep(Path(name) / f"{count}", *words, f"sweep.trials={count}", *extra)
                print(
                    f"{number} {what}: {time.monotonic() - started:.1f} s in all, best {best(folder):.4f}", flush=True
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--head", type=Path)
    parser.add_argument("--runs", type=int, default=30)
    asked = parser.parse_args()
    if asked.head is not None:
        heads(asked.head, asked.trials or 300, asked.runs)
    else:
        compare(asked.seeds, asked.trials or 16, asked.epochs)
