"""What accuracy.py runs in a process of its own: one method, trained as its documentation tells, scored on the test.

usage: accuracy_peers.py METHOD TASK SEED... (see accuracy.py, which starts it)
"""

import importlib
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accuracy import RESULT, Task
from torch import Tensor, nn

BATCH = 32
Result = dict[str, Any]


def clock() -> float:
    """Return the seconds of the processor that this process and those it has waited for have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def seconds_of(step: Callable[[], Any]) -> float:
    """Return the seconds of one step, the mean of three after the first."""
    step()
    started = clock()
    for _ in range(3):
        step()
    return (clock() - started) / 3


def network(classes: int) -> nn.Module:
    """Return the backbone with its bundled weights and a new linear head."""
    from finetune.models.network import build_network

    return build_network("tf_efficientnet_lite0", num_classes=classes, weights="bundled")


class Images(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """The images of a split, through torchvision's usual transforms."""

    def __init__(self, task: Task, split: str, *, augmented: bool) -> None:
        """Read the table."""
        from torchvision import transforms as T  # noqa: N812 - as in its documentation

        table = pd.read_csv(task.table, dtype={"label": str})
        self.labels = sorted(table["label"].unique())
        rows = table[table["split"] == split]
        self.paths, self.targets = list(rows["path"]), [self.labels.index(label) for label in rows["label"]]
        end = [T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)]
        bicubic = T.InterpolationMode.BICUBIC
        crop = T.RandomResizedCrop(task.size, (task.smallest_crop, 1.0), interpolation=bicubic)
        varied = [crop, T.RandomHorizontalFlip(task.flip)]
        plain = [T.Resize(round(task.size / 0.875), bicubic), T.CenterCrop(task.size)]
        self.transform = T.Compose([*(varied if augmented else plain), *end])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image (C, H, W) and its target."""
        from PIL import Image

        return self.transform(Image.open(self.paths[index]).convert("RGB")), self.targets[index]


def batches(data: Images, *, shuffle: bool = False) -> Any:
    """Return the batches of a data set."""
    return torch.utils.data.DataLoader(data, BATCH, shuffle=shuffle)


def endless(data: Images) -> Iterator[list[Tensor]]:
    """Yield training batches for ever."""
    while True:
        yield from batches(data, shuffle=True)


@torch.no_grad()
def scores(model: Callable[[Tensor], Tensor], task: Task) -> Result:
    """Return accuracy and macro F1 on the test images."""
    data = Images(task, "test", augmented=False)
    guesses = torch.cat([model(images).argmax(1) for images, _ in batches(data)]).numpy()
    return scored(np.array(data.targets), guesses)


def scored(targets: np.ndarray, guesses: np.ndarray) -> Result:
    """Return accuracy and macro F1."""
    from sklearn.metrics import f1_score

    f1 = float(f1_score(targets, guesses, average="macro"))
    return {"accuracy": float((targets == guesses).mean()), "f1": f1, "n": len(targets)}


def epoch_seconds(model: nn.Module, task: Task, validations: int = 1) -> float:
    """Return the seconds of a training epoch of all moving weights, with its validations; the network is changed."""
    train, val = Images(task, "train", augmented=True), Images(task, "val", augmented=False)
    source = endless(train)

    def step() -> None:
        images, targets = next(source)
        nn.functional.cross_entropy(model(images), targets).backward()

    def look() -> None:
        with torch.no_grad():
            model(next(source)[0])

    return seconds_of(step) * len(train) / BATCH + validations * seconds_of(look) * len(val) / BATCH


def train_fastai(task: Task, seed: int) -> Result:
    """Train by `vision_learner` and `fine_tune`: an epoch of the head, then all layers, at the default rates."""
    from fastai.vision import all as fastai

    fastai.set_seed(seed, reproducible=True)
    table = pd.read_csv(task.table, dtype={"label": str})
    table = table[table["split"] != "test"].assign(is_valid=lambda rows: rows["split"] == "val")
    augment = fastai.aug_transforms(size=task.size, min_scale=max(0.75, task.smallest_crop), do_flip=task.flip > 0)
    normalize = fastai.Normalize.from_stats([0.5] * 3, [0.5] * 3, cuda=False)
    loaders = fastai.ImageDataLoaders.from_df(
        table, path="/", fn_col="path", label_col="label", valid_col="is_valid", seed=seed, bs=BATCH,
        item_tfms=fastai.Resize(round(task.size * 1.25)), batch_tfms=[*augment, normalize], num_workers=0,
        device=torch.device("cpu"),
    )  # fmt: skip

    def arch(pretrained: bool = True) -> nn.Module:
        found = network(2).backbone
        return nn.Sequential(found.conv_stem, found.bn1, found.blocks, found.conv_head, found.bn2)

    fastai.model_meta[arch] = {"cut": 5, "split": fastai.default_split}

    def learner() -> Any:
        return fastai.vision_learner(loaders, arch, normalize=False, metrics=fastai.accuracy)

    trial = learner()

    def step() -> None:
        images, targets = loaders.one_batch()
        trial.loss_func(trial.model(images), targets).backward()

    parts = len(loaders.train_ds) / BATCH
    look = len(loaders.valid_ds) / len(loaders.train_ds) / 3  # forward alone
    frozen = seconds_of(step) * parts * (1 + look)
    trial.unfreeze()
    whole = seconds_of(step) * parts * (1 + look)
    epochs = max(1, round((task.seconds - frozen) / whole))
    final = learner()
    started = clock()
    with final.no_bar(), final.no_logging():
        final.fine_tune(epochs)
    seconds = clock() - started
    rows = pd.read_csv(task.table, dtype={"label": str}).query("split == 'test'")
    found, _ = final.get_preds(dl=loaders.test_dl(rows))
    guesses = np.array(list(loaders.vocab))[found.argmax(1).numpy()]
    return {**scored(rows["label"].to_numpy(), guesses), "seconds": seconds, "epochs": epochs}


class WithLoss(nn.Module):
    """A network as the Hugging Face Trainer wants it."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap a network."""
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss and the logits (B, K) of images (B, C, H, W)."""
        logits = self.model(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def train_transformers(task: Task, seed: int, rate: float = 5e-5) -> Result:
    """Train by the Trainer as its image classification guide does: warm-up, an evaluation each epoch, the best kept."""
    from transformers import Trainer, TrainingArguments, set_seed

    set_seed(seed)
    train, val = Images(task, "train", augmented=True), Images(task, "val", augmented=False)
    epochs = max(1, round(task.seconds / epoch_seconds(network(len(train.labels)).train(), task)))
    model = WithLoss(network(len(train.labels)))

    def collate(items: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
        images, labels = zip(*items, strict=True)
        return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}

    def accuracy(found: Any) -> dict[str, float]:
        return {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH,
            learning_rate=rate, warmup_steps=0.1, seed=seed, report_to=[], save_strategy="epoch",
            eval_strategy="epoch", load_best_model_at_end=True, metric_for_best_model="accuracy", save_total_limit=1,
            disable_tqdm=True, logging_strategy="no", remove_unused_columns=False, use_cpu=True, label_names=["labels"],
        )  # fmt: skip
        trainer = Trainer(model, arguments, collate, train, val, compute_metrics=accuracy)
        started = clock()
        trainer.train()
        seconds = clock() - started
    return {**scores(model.eval().model, task), "seconds": seconds, "epochs": epochs}


def train_tuned(task: Task, seed: int) -> Result:
    """Train by the Trainer at ten times its usual rate, which suits this network better."""
    return train_transformers(task, seed, 5e-4)


def train_torchgeo(task: Task, seed: int) -> Result:
    """Train a linear head as torchgeo's ClassificationTask(freeze_backbone=True) does: AdamW 1e-3, rate by plateau.

    The frozen backbone is in eval mode here, so that BatchNorm does not drift; the epoch with the least validation
    loss is kept, as in torchgeo's tutorials.
    """
    torch.manual_seed(seed)
    train, val = Images(task, "train", augmented=True), Images(task, "val", augmented=False)
    model = network(len(train.labels)).eval()
    model.backbone.requires_grad_(False)
    epochs = max(1, round(task.seconds / frozen_seconds(task, len(train.labels))))
    optimizer = torch.optim.AdamW(model.head.parameters(), 1e-3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=10)
    best, kept = float("inf"), {}
    started = clock()
    for _ in range(epochs):
        for images, targets in batches(train, shuffle=True):
            loss = nn.functional.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            found = [
                nn.functional.cross_entropy(model(images), targets, reduction="sum") for images, targets in batches(val)
            ]
        scheduler.step(float(sum(found)))
        if float(sum(found)) < best:
            best, kept = float(sum(found)), {name: value.clone() for name, value in model.head.state_dict().items()}
    seconds = clock() - started
    model.head.load_state_dict(kept)
    return {**scores(model, task), "seconds": seconds, "epochs": epochs}


def frozen_seconds(task: Task, classes: int) -> float:
    """Return the seconds of an epoch in which the head alone moves."""
    model = network(classes).eval()
    model.backbone.requires_grad_(False)
    return epoch_seconds(model, task)


def train_autogluon(task: Task, seed: int) -> Result:
    """Train by `MultiModalPredictor` with its defaults for images, but batches of the others' size.

    The defaults are AdamW 1e-4 with layer decay, TrivialAugment, two validations each epoch, and a greedy soup of the
    best three.
    """
    import timm
    from autogluon.multimodal import MultiModalPredictor

    table = pd.read_csv(task.table, dtype={"label": str})
    named = {split: table.loc[table["split"] == split, ["path", "label"]] for split in ("train", "val", "test")}
    model = timm.create_model("tf_efficientnet_lite0", num_classes=table["label"].nunique()).train()
    epochs = max(1, round(task.seconds / epoch_seconds(model, task, validations=2)))
    with tempfile.TemporaryDirectory() as folder:
        predictor = MultiModalPredictor(label="label", path=f"{folder}/model", eval_metric="accuracy", verbosity=0)
        started = clock()
        predictor.fit(
            named["train"], tuning_data=named["val"], seed=seed, column_types={"path": "image_path"},
            hyperparameters={
                "model.names": ["timm_image"], "model.timm_image.checkpoint_name": task.network,
                "model.timm_image.image_size": task.size, "optim.max_epochs": epochs, "env.batch_size": BATCH,
                "env.per_gpu_batch_size": BATCH, "env.num_gpus": 0, "env.num_workers": 0,
                "env.num_workers_inference": 0, "env.precision": 32,
            },
        )  # fmt: skip
        seconds = clock() - started
        guesses = predictor.predict(named["test"].drop(columns="label"), as_pandas=False)
    return {**scored(named["test"]["label"].to_numpy(), np.asarray(guesses)), "seconds": seconds, "epochs": epochs}


def groups_of(table: str) -> list[str]:
    """Return the words that say which images are of one piece, where a table says it."""
    with open(table, encoding="utf-8") as file:
        known = "piece" in file.readline().strip().split(",")
    return ["data.group_columns=[piece]", "data.splits.group=piece"] if known else []


def train_ours(task: Task, seed: int) -> Result:
    """Train by this project's command line, with nothing chosen and an empty cache; the whole command is counted."""
    from finetune.cli import main

    with tempfile.TemporaryDirectory() as folder:
        sys.argv = [
            "finetune", "data=csv", f"data.path={task.table}", f"data.image_size={task.size}", f"seed={seed}",
            f"data.horizontal_flip={task.flip}", f"data.smallest_crop={task.smallest_crop}", f"runs={folder}/runs",
            f"cache.dir={folder}/cache", "logger=none", "report=false", "explain.images=0", "bootstrap=0",
            "recipe=auto", f"recipe.budget={task.seconds}s", *groups_of(task.table),
        ]  # fmt: skip
        started = clock()
        try:
            main()
        except SystemExit as stop:
            if stop.code:
                raise
        seconds = clock() - started
        (file,) = Path(folder).rglob("metrics.json")
        test = json.loads(file.read_text())["test"]
        record = json.loads((file.parent / "run.json").read_text())
        images = json.loads(file.read_text())["n"]["test"]
    kept = {name: record.get(name) for name in ("recipe", "kept")}
    return {
        "accuracy": test["accuracy"]["value"],
        "f1": test["f1_macro"]["value"],
        "n": images,
        "seconds": seconds,
        **kept,
    }


PEERS = {
    "ours": train_ours, "fastai": train_fastai, "transformers": train_transformers, "transformers_tuned": train_tuned,
    "torchgeo": train_torchgeo, "autogluon": train_autogluon,
}  # fmt: skip
# imported once for all seeds, so that no seed's seconds count it
LIBRARIES = {
    "ours": "finetune.commands.train",
    "fastai": "fastai.vision.all",
    "torchgeo": "finetune.models.network",
    "autogluon": "autogluon.multimodal",
}


def run_all(method: str, task: Task, seeds: list[int]) -> None:
    """Train once for each seed, each time in a fresh copy of this process."""
    torch.set_num_threads(1)
    if method != "autogluon":
        importlib.import_module("finetune.models.network")
    importlib.import_module(LIBRARIES.get(method, "transformers"))
    for seed in seeds:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            found = PEERS[method](replace(task, table=task.table.format(seed=seed)), seed)
            print(f"\n{RESULT}{json.dumps({'seed': seed, **found})}", flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"{method} failed with seed {seed}.")


if __name__ == "__main__":
    run_all(sys.argv[1], Task(**json.loads(sys.argv[2])), [int(seed) for seed in sys.argv[3:]])
