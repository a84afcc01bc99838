"""One rank of a training by a word: a head on cached features, with as many images per step on any number of ranks.

usage: words_worker.py FOLDER TABLE WORDS...    words: of one training, joined by spaces
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from assembled import parts_of

from finetune.runs.run import Run
from finetune.training.callbacks.checkpoints import Checkpoints
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import fit
from finetune.training.resume import ResumePoint

WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))
STEP = 12  # images of a step, on all ranks together


def train(table_file: str, words: list[str], folder: Path) -> list[float]:
    """Train a head and return its weights after the last step."""
    folder.mkdir(exist_ok=True)
    usual = (
        "data=csv", f"data.path={table_file}", "strategy=frozen", "model=timm", "model.name=test_resnet",
        "model.weights=none", "trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={WORLD_SIZE}",
        "strategy.epochs=2", "logger=none", "optimizer=sgd", f"cache.dir={folder}/cache", "data.image_size=32",
    )  # fmt: skip
    table, network, strategy, recipe, images = parts_of(*words, given=usual)
    recipe = replace(recipe, head_batch_size=STEP // WORLD_SIZE, regularizer=recipe.regularizer.towards(network))
    metrics = MetricsCallback(table.task, table.num_classes, None, 100)
    fit(network, strategy, images, recipe, place=ResumePoint(), metrics=metrics,
        checkpoints=Checkpoints(Run(folder), "val/accuracy", "max"), callbacks=list, loggers=[])  # fmt: skip
    return torch.cat([value.flatten() for value in network.head.parameters()]).tolist()


def main() -> None:
    """Train by each word and report from the first rank."""
    torch.set_num_threads(1)
    folder, table = Path(sys.argv[1]), sys.argv[2]
    found = {words: train(table, words.split(), folder / str(number)) for number, words in enumerate(sys.argv[3:])}
    if os.environ.get("RANK", "0") == "0":
        (folder / "results.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
