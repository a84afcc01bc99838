"""This project beside a bare PyTorch loop, fastai and the Hugging Face Trainer: time, accuracy and memory in one run.

All train the same backbone with the same weights on the same images of the same folders (train, val, test), with the
same crops and mirror images, optimizer, rate, batch, epochs and validation after each epoch, each in a process of its
own, in turn. What is timed is training with its validation; what is scored is the last epoch (here: the best one).

usage: peers.py FOLDER [--mode full|frozen] [--epochs N] [--seeds N] [--peers ours,bare,...] [--json FILE]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SIZE, BATCH, DECAY = 224, 32, 0.05
RATES = {"full": 5e-4, "frozen": 5e-3}
SCALE = (0.35, 1.0)
Result = dict[str, float]


def network(classes: int, mode: str) -> nn.Module:
    """Return the backbone with its weights and a new head; frozen leaves the head alone to move."""
    from finetune.models.network import build_network

    built = build_network("tf_efficientnet_lite0", num_classes=classes, weights="bundled")
    built.backbone.requires_grad_(mode == "full")
    return built


def folders(root: Path, *, augmented: bool) -> dict[str, Any]:
    """Return torchvision's data sets of the splits, with the usual transforms."""
    from torchvision import datasets
    from torchvision import transforms as T  # noqa: N812 - as in its documentation

    end = [T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)]
    bicubic = T.InterpolationMode.BICUBIC
    train = T.Compose([T.RandomResizedCrop(SIZE, SCALE, interpolation=bicubic), T.RandomHorizontalFlip(), *end])
    plain = T.Compose([T.Resize(256, bicubic), T.CenterCrop(SIZE), *end])
    return {
        split: datasets.ImageFolder(str(root / split), train if augmented and split == "train" else plain)
        for split in ("train", "val", "test")
    }


@torch.no_grad()
def accuracy(model: Callable[[Tensor], Tensor], data: Any, device: torch.device) -> float:
    """Return the share of images that a model labels rightly."""
    right = 0
    for images, targets in torch.utils.data.DataLoader(data, BATCH):
        right += int((model(images.to(device)).argmax(1).cpu() == targets).sum())
    return right / len(data)


def device() -> torch.device:
    """Return where all of them compute."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_bare(root: Path, mode: str, epochs: int, seed: int) -> Result:
    """Train by the loop of every tutorial."""
    torch.manual_seed(seed)
    data = folders(root, augmented=True)
    model = network(len(data["train"].classes), mode).to(device())
    moving = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(moving, RATES[mode], weight_decay=DECAY)
    loader = torch.utils.data.DataLoader(data["train"], BATCH, shuffle=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    started = time.perf_counter()
    for _ in range(epochs):
        model.train(mode == "full")
        for images, targets in loader:
            loss = nn.functional.cross_entropy(model(images.to(device())), targets.to(device()), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        model.eval()
        accuracy(model, data["val"], device())
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "accuracy": accuracy(model, data["test"], device())}


def train_fastai(root: Path, mode: str, epochs: int, seed: int) -> Result:
    """Train by fastai's Learner."""
    from fastai.vision import all as fastai

    fastai.set_seed(seed, reproducible=True)
    crop = fastai.RandomResizedCrop(SIZE, min_scale=SCALE[0], resamples=(3, 3), val_xtra=256 / SIZE - 1)
    normalize = fastai.Normalize.from_stats([0.5] * 3, [0.5] * 3, cuda=torch.cuda.is_available())
    loaders = fastai.ImageDataLoaders.from_folder(
        root, train="train", valid="val", seed=seed, item_tfms=[crop], batch_tfms=[fastai.Flip(), normalize],
        bs=BATCH, num_workers=0, device=device(),
    )  # fmt: skip
    model = network(loaders.c, mode)
    if mode == "frozen":
        model.backbone.eval()
        model.backbone.train = lambda mode=True: model.backbone
    learner = fastai.Learner(
        loaders, model, loss_func=fastai.LabelSmoothingCrossEntropyFlat(), metrics=fastai.accuracy,
        opt_func=fastai.partial(fastai.Adam, decouple_wd=True), wd=DECAY, train_bn=mode == "full",
    )  # fmt: skip
    started = time.perf_counter()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, RATES[mode])
    seconds = time.perf_counter() - started
    model.eval()
    return {"seconds": seconds, "accuracy": accuracy(model, folders(root, augmented=False)["test"], device())}


class WithLoss(nn.Module):
    """A network as the Hugging Face Trainer wants it."""

    def __init__(self, model: nn.Module, mode: str) -> None:
        """Wrap a network."""
        super().__init__()
        self.model = model
        self.mode = mode

    def train(self, mode: bool = True) -> "WithLoss":
        """Leave a frozen backbone in eval mode."""
        super().train(mode)
        if self.mode == "frozen":
            self.model.backbone.eval()
        return self

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss and the logits (B, K) of images (B, C, H, W)."""
        logits = self.model(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels, label_smoothing=0.1), "logits": logits}


def train_transformers(root: Path, mode: str, epochs: int, seed: int) -> Result:
    """Train by the Hugging Face Trainer."""
    from transformers import Trainer, TrainingArguments, set_seed

    set_seed(seed)
    data = folders(root, augmented=True)
    model = WithLoss(network(len(data["train"].classes), mode), mode)

    def collate(items: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
        images, labels = zip(*items, strict=True)
        return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH,
            learning_rate=RATES[mode], weight_decay=DECAY, lr_scheduler_type="cosine", seed=seed, report_to=[],
            save_strategy="no", eval_strategy="epoch", disable_tqdm=True, logging_strategy="no",
            remove_unused_columns=False, use_cpu=not torch.cuda.is_available(),
        )  # fmt: skip
        trainer = Trainer(model, arguments, collate, data["train"], data["val"])
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    model.eval()
    return {"seconds": seconds, "accuracy": accuracy(model.model, data["test"], device())}


def train_ours(root: Path, mode: str, epochs: int, seed: int) -> Result:
    """Train by this project's command line, with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "clock.json"
        sys.argv = [
            "finetune", "data=folder", f"data.root={root}", f"strategy={mode}", f"strategy.epochs={epochs}",
            f"seed={seed}", f"runs={folder}/runs", f"cache.dir={folder}/cache", "logger=none", "bootstrap=0",
            "report=false", "explain.images=0",
            f"optimizer.lr={RATES['full']}", f"optimizer.weight_decay={DECAY}", "loss.label_smoothing=0.1",
            f"data.batch_size={BATCH}", f"+callbacks.clock={{_target_: clock.Clock, file: {clock}}}",
        ]  # fmt: skip
        if mode == "full":
            sys.argv += ["strategy.head_lr=1.0", "strategy.batchnorm=train"]
        from finetune.cli import main

        try:
            main()
        except SystemExit as stop:
            if stop.code:
                raise
        (metrics,) = Path(folder).rglob("metrics.json")
        return {
            "seconds": sum(json.loads(clock.read_text())),
            "accuracy": json.loads(metrics.read_text())["test"]["accuracy"]["value"],
        }


PEERS = {"ours": train_ours, "bare": train_bare, "fastai": train_fastai, "transformers": train_transformers}


def measure(peer: str, options: argparse.Namespace, seed: int) -> Result:
    """Train by one of them in a process of its own."""
    command = [sys.executable, __file__, str(options.folder), "--mode", options.mode, "--epochs", str(options.epochs)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "WANDB_MODE": "disabled"}
    found = subprocess.run(
        [*command, "--only", peer, "--seed", str(seed)], capture_output=True, text=True, check=False, env=environment
    )
    if found.returncode:
        raise SystemExit(f"{peer}: {found.stderr[-2000:]}\nInstall the peers: tests/benchmarks/peers.txt")
    return dict(json.loads(found.stdout.splitlines()[-1]))


def report(found: dict[str, list[Result]], images: int, epochs: int) -> None:
    """Print a row for each of them."""
    print(f"{'':14}{'seconds':>9}{'images/s':>10}{'ours is':>9}{'accuracy':>10}{'memory':>10}")
    for peer, results in found.items():
        seconds = statistics.median(result["seconds"] for result in results)
        pairs = zip(results, found["ours"], strict=True) if "ours" in found else []
        ratio = statistics.median([one["seconds"] / ours["seconds"] for one, ours in pairs] or [float("nan")])
        score = statistics.mean(result["accuracy"] for result in results)
        memory = max(result["memory"] for result in results) / 1e9
        print(f"{peer:14}{seconds:9.1f}{epochs * images / seconds:10.1f}{ratio:8.2f}x{score:10.3f}{memory:8.2f} GB")


def main() -> None:
    """Measure all in turn, print a table, and write the numbers if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mode", choices=("full", "frozen"), default="full")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder = options.folder.absolute()
    if options.only:
        result = PEERS[options.only](options.folder, options.mode, options.epochs, options.seed)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({**result, "memory": memory}))
        return
    found: dict[str, list[Result]] = {peer: [] for peer in options.peers.split(",")}
    for seed in range(options.seeds):
        for peer, results in found.items():
            results.append(measure(peer, options, seed))
            print(f"seed {seed}, {peer}: {results[-1]}", file=sys.stderr)
    images = sum(1 for path in (options.folder / "train").rglob("*") if path.is_file())
    report(found, images, options.epochs)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
