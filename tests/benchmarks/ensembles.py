"""An ensemble of one cross-validation beside its members: test accuracy of both, over several seeds.

The folds are heads on cached features, trained as `finetune crossval strategy=frozen` trains them, and all of them are
tested on the same test split, which no fold has seen. The best member is the one that does best on the images that its
fold held out; the best on the test split, which nobody can know beforehand, is given beside it. Seeds deal the images
out to folds anew and start the heads anew.

usage: ensembles.py digits|FOLDER [--seeds N] [--first SEED] [--folds N] [--gap N] [WORD…]
       words: further settings of a run

With --gap 100, files whose names end in numbers that are no more than 100 apart are exposures of one piece, which no
split and no fold parts. Without words the heads are logistic regressions whose strength is cross-validated. With a
strategy that moves the backbone, such as strategy=lp_ft, the folds are whole networks, a process each.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pieces import write_table
from scipy.stats import t

from finetune.config.compose import register
from finetune.config.settings.roots import TrainSettings
from finetune.data.folds import crossval_pool, make_folds
from finetune.data.table import ImageTable
from finetune.ensembles.crossval.crossval_plan import COMMAND, OWN, CrossvalPlan, make_crossval_plan
from finetune.ensembles.crossval.in_process import read_table, train_folds
from finetune.ensembles.crossval.member_weights import fold_weights
from finetune.evaluation.inference import Predictor
from finetune.models.bundle import load_bundle
from finetune.models.ensemble_network import JoinedHead, join_networks
from finetune.models.network import Network
from finetune.runs.run import Run
from finetune.runtime.device import DevicePass
from finetune.runtime.log_filters import quieten
from finetune.search.command_line import read_request
from finetune.training.build import load_images, open_cache
from finetune.training.head_trainer import HeadTrainer

LOGISTIC = ["head=logistic", "head.l2=cv", "loss.label_smoothing=0"]


def words_of(images: str, gap: int | None, folder: Path) -> list[str]:
    """Return the words that name the images."""
    if images == "digits":
        return ["data=digits"]
    if gap is None:
        return ["data=folder", f"data.root={images}"]
    write_table(Path(images), gap, folder / "table.csv")
    return ["data=csv", f"data.path={folder / 'table.csv'}", "data.group_columns=[piece]", "data.splits.group=piece"]


def measure(words: list[str], seed: int, folds: int) -> dict[str, Any]:
    """Return the accuracies of one cross-validation."""
    words = [*words, f"seed={seed}", f"cv.seed={seed}", f"cv.folds={folds}", "logger=none", f"data.splits.seed={seed}"]
    if not any(word.startswith("strategy=") for word in words):
        words.append("strategy=frozen")
    plan = make_crossval_plan(read_request(["--config-name", COMMAND, *words], OWN, COMMAND))
    table = read_table(plan.base)
    network, held = of_heads(plan, table) if plan.here else of_networks(words)
    tested, chosen = answers(network, table, plan.base), int(np.argmax(held))
    return {
        "ensemble": tested[-1], "best": tested[chosen], "mean": float(np.mean(tested[:-1])),
        "luckiest": max(tested[:-1]), "n": len(table.rows("test")),
    }  # fmt: skip


def of_heads(plan: CrossvalPlan, table: ImageTable) -> tuple[Network, list[float]]:
    """Train heads in this process; return the ensemble and what each did on its held-out images."""
    dealt = make_folds(crossval_pool(table), plan.settings, plan.base.data.splits.group)
    results = list(train_folds(HeadTrainer(plan.base, crossval_pool(table)), dealt))
    right = [float(result.predictions.right.mean()) for result in results]
    weights = fold_weights([result.predictions for result in results], plan.weights)
    return join_networks([result.member for result in results], "mean", table.task, weights), right


def of_networks(words: list[str]) -> tuple[Network, list[float]]:
    """Train whole networks by the command line; return the ensemble and what each did on its held-out images."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "finetune", "crossval", *words, f"runs={folder}", "bootstrap=0",
                   "report=false", "explain.images=0", "ood=none"]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        run = Run.find("last", Path(folder))
        folds = json.loads(run.metrics_file.read_text())["cv"]["metrics"]["accuracy"]["values"]
        return load_bundle(run.model_dir).network, folds


@torch.no_grad()
def answers(network: Network, table: ImageTable, settings: TrainSettings) -> list[float]:
    """Return the test accuracy of each member, and of all together; each image passes through the backbone once."""
    images, rows = load_images(settings, table, network, open_cache(settings.cache)), table.rows("test")
    found = Predictor(network, DevicePass(torch.device("cpu"))).split(images, "test", sample=rows)
    head, targets = network.head[0], torch.from_numpy(found.targets)
    assert isinstance(head, JoinedHead) and found.features is not None
    scores = [*head.scores(torch.from_numpy(found.features)), torch.from_numpy(found.logits[0])]
    return [float((each.argmax(1) == targets).float().mean()) for each in scores]


def main() -> None:
    """Measure, and print a line for each seed and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("words", nargs="*", default=LOGISTIC)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--gap", type=int, default=None)
    asked = parser.parse_args()
    register()
    quieten()
    with tempfile.TemporaryDirectory() as folder:
        words = [*words_of(asked.images, asked.gap, Path(folder)), *asked.words]
        seeds = range(asked.first, asked.first + asked.seeds)
        found = [measure(words, seed, asked.folds) for seed in seeds]
    for seed, row in zip(seeds, found, strict=True):
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "n"))
    gains = [row["ensemble"] - row["best"] for row in found]
    half = float(t.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains) / len(gains) ** 0.5
    print(
        ", ".join(
            f"{name} {np.mean([row[name] for row in found]):.4f}" for name in ("ensemble", "best", "mean", "luckiest")
        )
    )
    print(f"ensemble - best: {np.mean(gains):+.4f} ± {half:.4f} (95 %), n = {found[0]['n']}")


if __name__ == "__main__":
    main()
