"""What each word against imbalance, or against wrong labels, changes where a head is trained on cached features.

usage: imbalance.py FOLDER [--seeds 10] [--words none focal …] [--noise none …] [--turned 0.0] [--gap 100] [--kept FILE]
       [WORD…]                                                      further settings of a run, such as head=logistic

FOLDER holds a folder per class. Images whose names end in numbers that are no more than --gap apart, across classes,
are exposures of one piece, and no piece stands on two sides of a split: 20 % of the images are for validation, 30 % for
the test. For each seed, which makes the split as well, a head is trained for each word, its best epoch by macro F1 on
validation; --turned turns that share of the training labels first. Printed are macro F1, the mean recall of the classes
and the recall of the class that is recognised worst, on test: means over seeds with 95 % t-intervals, and the same of
the differences from the first word, paired by seed. The seeds' splits share images, so the intervals tell how sure the
mean over splits of these images is. Words of --noise are compared without label smoothing, but for smoothing itself.
--kept remembers what is done, so that the same call goes on where it was stopped.
"""

import argparse
import json
import logging
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from pieces import write_table
from scipy.stats import t
from sklearn.metrics import f1_score, recall_score

from finetune.audit.drop_label_errors import drop_suspects
from finetune.config.compose import conf_dir, register
from finetune.config.resolve import resolve
from finetune.config.settings.data_groups import Imbalance
from finetune.config.settings.roots import TrainSettings
from finetune.data.table import ImageTable, object_column
from finetune.runs.run import Run
from finetune.runtime.log_filters import quieten
from finetune.training.build import build_recipe, load_images, load_network, load_table, open_cache
from finetune.training.callbacks.checkpoints import Checkpoints, network_state, read_checkpoint
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import fit, predict_split
from finetune.training.resume import ResumePoint
from finetune.training.trainer import start_pass

SETTINGS = (
    "strategy=frozen", "trainer=cpu", "trainer.threads=1", "logger=none", "monitor=val/f1_macro",
    "data.splits.val=0.2", "data.splits.test=0.3", "data.splits.group=piece", "data.group_columns=[piece]",
)  # fmt: skip
UNSMOOTHED = {f"label_noise={word}": ("loss.label_smoothing=0",) for word in ("none", "mixup", "drop_suspects")}


def turn(table: ImageTable, share: float, seed: int) -> ImageTable:
    """Return a table of which a share of the training labels was turned into others, drawn at random."""
    generator = np.random.default_rng(seed)
    labels, rows = table.frame["label"].tolist(), table.rows("train")
    for row in generator.permutation(rows)[: round(share * len(rows))]:
        labels[row] = str(generator.choice([name for name in table.labels if name != labels[row]]))
    return replace(table, frame=table.frame.assign(label=object_column(labels)))


def measure(overrides: Sequence[str], turned: float, work: Path) -> dict[str, float]:
    """Train as configured, and return macro F1, the mean recall of classes and the worst class's on test."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        settings = resolve(compose("train", list(overrides)), TrainSettings, overrides)
    pl.seed_everything(settings.seed, verbose=False)
    cache, strategy = open_cache(settings.cache), settings.strategy
    table = turn(load_table(settings.data), turned, settings.seed)
    network, run = load_network(settings, table), Run(work)
    table = drop_suspects(run, settings, table, network, cache)
    recipe = build_recipe(settings, table, cache)
    recipe = replace(recipe, regularizer=recipe.regularizer.towards(network))
    images, checkpoints = load_images(settings, table, network, cache), Checkpoints(run, settings.monitor, "max")
    metrics = MetricsCallback(table.task, table.num_classes, None, 1000)
    fit(network, strategy, images, recipe, place=ResumePoint(), metrics=metrics, checkpoints=checkpoints,
        callbacks=list, loggers=[])  # fmt: skip
    network.load_state_dict(network_state(read_checkpoint(run.best_checkpoint), averaged=True))
    found = predict_split(network, images, "test", recipe, start_pass(recipe.trainer), cached=True)
    truth, said = table.targets()[found.rows], found.logits[0].argmax(1)
    recalls = recall_score(truth, said, average=None, labels=np.unique(truth), zero_division=0)
    f1 = f1_score(truth, said, average="macro", labels=np.unique(truth))
    return {"f1": float(f1), "recall": float(recalls.mean()), "worst": float(recalls.min())}


def interval(values: Sequence[float]) -> str:
    """Return a mean with its interval."""
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {half:.3f}"


def show(results: dict[str, list[dict[str, float]]]) -> None:
    """Print a row for each word."""
    first = next(iter(results))
    print("| word | macro F1 | difference | mean recall | difference | worst recall | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for word, found in results.items():
        cells = []
        for name in ("f1", "recall", "worst"):
            values, before = ([entry[name] for entry in part] for part in (found, results[first]))
            gain = interval([after - then for after, then in zip(values, before, strict=True)])
            cells += [interval(values), "" if word == first else gain]
        print(f"| `{word}` | {' | '.join(cells)} |")


def main() -> None:
    """Measure each word for each seed, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--words", nargs="+", default=[])
    parser.add_argument("--noise", nargs="+", default=[])
    parser.add_argument("--turned", type=float, default=0.0)
    parser.add_argument("--gap", type=int, default=100)
    parser.add_argument("--kept", type=Path)
    asked, further = parser.parse_known_args()
    words = [f"imbalance={word}" for word in asked.words] + [f"label_noise={word}" for word in asked.noise]
    words = words or [f"imbalance={word}" for word in get_args(Imbalance)]
    quieten()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    register()
    kept = {}
    if asked.kept is not None and asked.kept.exists():
        kept = {entry["key"]: entry["found"] for entry in map(json.loads, asked.kept.read_text().splitlines())}
    results: dict[str, list[dict[str, float]]] = {word: [] for word in words}
    with tempfile.TemporaryDirectory() as name:
        pieces = write_table(asked.folder, asked.gap, Path(name) / "table.csv")
        print(f"{pieces} pieces")
        for seed in range(asked.seeds):
            for word in words:
                varied = [word, f"seed={seed}", f"data.splits.seed={seed}", *UNSMOOTHED.get(word, ())]
                key = " ".join([*varied, *further, f"turned={asked.turned}", f"gap={asked.gap}"])
                if key not in kept:
                    data = ["data=csv", f"data.path={name}/table.csv"]
                    work = Path(name) / str(len(kept))
                    work.mkdir()
                    kept[key] = measure([*SETTINGS, *data, *varied, *further], asked.turned, work)
                    if asked.kept is not None:
                        with asked.kept.open("a") as file:
                            file.write(json.dumps({"key": key, "found": kept[key]}) + "\n")
                results[word].append(kept[key])
    show(results)


if __name__ == "__main__":
    main()
