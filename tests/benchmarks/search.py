"""What searching gains: pruned TPE beside random search at the same cost, and head-only trials beside ordinary ones.

usage: search.py [--seeds 5] [--trials 12] [--epochs 8]     on the bundled digits
       search.py --head FOLDER [--trials 300] [--runs 30]   on photos, whose features are computed first

The first prints, for each seed, the best validation score that random search and that TPE with pruning have found.
Random search runs the given trials whole; TPE then has as many seconds. The second prints how long the head-only trials
take in one process, and the best score beside that of the best of some full-process trials.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPACE = [
    "optimizer.lr=tag(log,interval(1e-5,1e-1))", "strategy.layer_decay=interval(0.5,1.0)",
    "optimizer.weight_decay=tag(log,interval(1e-4,1.0))",
]  # fmt: skip
LIGHT = ["model.name=test_efficientnet", "model.weights=none", "data.image_size=32", "bootstrap=0", "logger=none",
         "strategy=full", "sweep.page=false"]  # fmt: skip

PRUNED = ["sweep=tpe", "sweep.trials=1000", "sweep.sampler_options.n_startup_trials=4", "sweep.pruner=median",
          "+sweep.pruner_options.n_startup_trials=3", "+sweep.pruner_options.n_warmup_steps=1"]  # fmt: skip


def sweep(folder: Path, *words: str) -> dict[str, float]:
    """Run a sweep; return its best score, its trials, and the seconds that it and its trials took."""
    started = time.monotonic()
    command = [sys.executable, "-m", "finetune", "sweep", *words, f"sweep.folder={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    (record,) = folder.glob("*/*/sweep.json")
    (best,) = json.loads(record.read_text())["best"]
    with record.with_name("sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    spent = sum(float(row["seconds"] or 0) for row in rows)
    return {"best": next(iter(best["values"].values())), "trials": len(rows), "seconds": seconds, "spent": spent}


def compare(seeds: int, trials: int, epochs: int) -> None:
    """Print the table of random search and pruned TPE."""
    common = [*LIGHT, *SPACE, f"strategy.epochs={epochs}"]
    found: dict[str, list[float]] = {"random": [], "tpe": []}
    print("seed  random (trials)  pruned TPE (trials)  seconds of trials")
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as name:
            plain = sweep(
                Path(name) / "random", *common, "sweep=random", f"sweep.seed={seed}", f"sweep.trials={trials}"
            )
            pruned = sweep(
                Path(name) / "tpe", *common, *PRUNED, f"sweep.seed={seed}", f"sweep.timeout={plain['spent']}"
            )
        found["random"].append(plain["best"])
        found["tpe"].append(pruned["best"])
        print(
            f"{seed:4}  {plain['best']:.4f} ({plain['trials']:.0f})      {pruned['best']:.4f} ({pruned['trials']:.0f})"
            f"          {plain['spent']:.0f} and {pruned['spent']:.0f}",
            flush=True,
        )
    print(f"mean  {statistics.mean(found['random']):.4f}           {statistics.mean(found['tpe']):.4f}")


def heads(root: Path, trials: int, runs: int) -> None:
    """Print how long head-only trials take, and what they find beside ordinary ones."""
    images = ["data=folder", f"data.root={root.absolute()}", "logger=none", "sweep.page=false"]
    with tempfile.TemporaryDirectory() as name:
        cache = f"cache.dir={name}/cache"
        subprocess.run([sys.executable, "-m", "finetune", "features", *images[:2], cache], check=True)
        words = [*images, cache, "strategy=frozen", "space=head_lr"]
        here = sweep(Path(name) / "here", *words, f"sweep.trials={trials}")
        print(
            f"{trials} head-only trials in one process: {here['seconds']:.1f} s in all, best {here['best']:.4f}",
            flush=True,
        )
        if runs:
            apart = sweep(Path(name) / "apart", *words, f"sweep.trials={runs}", "sweep.in_process=false")
            print(f"{runs} trials with a process each: {apart['seconds']:.1f} s in all, best {apart['best']:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--head", type=Path)
    parser.add_argument("--runs", type=int, default=30)
    asked = parser.parse_args()
    if asked.head is not None:
        heads(asked.head, asked.trials or 300, asked.runs)
    else:
        compare(asked.seeds, asked.trials or 12, asked.epochs)
