"""One rank of a distributed training: trains tiny networks by each strategy and reports what the ranks hold.

usage: distributed_worker.py FOLDER STRATEGY...
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from configured import settings_for
from pytorch_lightning.callbacks import Callback

from finetune.config.settings.phases import build_strategy
from finetune.config.settings.training_groups import OptimizerSettings, Schedule, TrainerSettings
from finetune.data.cache.store import Cache
from finetune.features.extract import FeatureSettings
from finetune.models.heads.modules import HeadSpec
from finetune.models.network import Network, build_network
from finetune.runs.run import Run
from finetune.training.callbacks.checkpoints import Checkpoints
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import Recipe, build_classifier, fit, predict_split
from finetune.training.losses import CrossEntropy
from finetune.training.resume import ResumePoint
from finetune.training.trainer import start_pass

sys.path.insert(0, str(Path(__file__).parent))
from tiny import strategy_config, tiny_images, tiny_table  # noqa: E402

WORLD_SIZE = int(os.environ.get("WORLD_SIZE", "1"))


def digest(network: Network) -> str:
    """Return a digest of all weights and buffers."""
    content = b"".join(value.detach().contiguous().numpy().tobytes() for value in network.state_dict().values())
    return hashlib.sha256(content).hexdigest()


class Compare(Callback):
    """Collects, after each epoch, the digest of every rank's weights."""

    def __init__(self, seen: list[list[str]]) -> None:
        """Collect into a list."""
        self.seen = seen

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        digests = [digest(pl_module.network)]
        if trainer.world_size > 1:
            digests = [""] * trainer.world_size
            torch.distributed.all_gather_object(digests, digest(pl_module.network))
        self.seen.append(digests)


def train_one(name: str, folder: Path) -> dict:
    """Train one strategy and return what happened."""
    pl.seed_everything(0, verbose=False)
    table = tiny_table(train=40, val=13, test=21)
    strategy = build_strategy(strategy_config(name))
    network = tiny_network(table.num_classes, strategy)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    settings = settings_for(
        TrainerSettings, accelerator="cpu", devices=world_size(), strategy="ddp" if world_size() > 1 else "auto"
    )
    recipe = Recipe(
        CrossEntropy(),
        settings_for(OptimizerSettings, lr=1e-2),
        settings_for(Schedule, "cosine", 0.1, 0.0),
        settings,
        features=FeatureSettings(views=2, cache=Cache(folder / "cache", 10**9)),
    )
    checkpoints = Checkpoints(Run(folder / name), "val/accuracy", "max")
    metrics = MetricsCallback(table.task, table.num_classes, None, 100)
    seen: list[list[str]] = []
    images = tiny_images(table, network)
    fit(network, strategy, images, recipe, place=ResumePoint(), metrics=metrics, checkpoints=checkpoints,
        callbacks=lambda: [Compare(seen)], loggers=[])  # fmt: skip
    moved = sum(not torch.equal(before[key], value) for key, value in network.state_dict().items())
    validated = predict_split(network, images, "val", recipe, start_pass(settings, join=True), cached=True)
    return {"digests": seen, "moved": moved, "validated": len(validated.rows)}


def tiny_network(num_classes: int, strategy: object) -> Network:
    """Return a small network, with adapters where the strategy has them."""
    from finetune.models.adapters import add_lora

    network = build_network(
        "test_efficientnet", num_classes=num_classes, weights="none", head=HeadSpec(), image_size=32
    )
    adapter = strategy.adapter
    if adapter is not None:
        add_lora(network.backbone, rank=adapter.rank, alpha=adapter.alpha, targets=adapter.targets)
    return network


def score(folder: Path) -> dict:
    """Score untrained but seeded weights on 21 test images, and validate them inside a trainer."""
    pl.seed_everything(1, verbose=False)
    table = tiny_table(train=40, val=13, test=21)
    strategy = build_strategy(strategy_config("full"))
    network = tiny_network(table.num_classes, strategy)
    settings = settings_for(
        TrainerSettings, accelerator="cpu", devices=world_size(), strategy="ddp" if world_size() > 1 else "auto"
    )
    recipe = Recipe(
        CrossEntropy(), settings_for(OptimizerSettings, lr=0.0), settings_for(Schedule, "constant", 0.0, 1.0), settings
    )
    images = tiny_images(table, network)
    classifier = build_classifier(network, strategy.phases[-1], recipe, 0, ResumePoint())
    device_pass = start_pass(settings, join=True)
    found = predict_split(network, images, "test", recipe, device_pass, sample=table.rows("test")[1::3])
    metrics = MetricsCallback(table.task, table.num_classes, None, 100)
    trainer = pl.Trainer(
        accelerator="cpu", devices=world_size(), strategy=settings.strategy, callbacks=[metrics], logger=False,
        enable_progress_bar=False, enable_checkpointing=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.validate(
        classifier, images.loader("val", augmented=False, rank=trainer.global_rank, world_size=trainer.world_size),
        verbose=False,
    )  # fmt: skip
    values = [value for name, value in sorted(metrics.values.items()) if value == value]
    return {
        "n": len(found.rows),
        "rows": found.rows.tolist(),
        "logits": found.logits.flatten().tolist(),
        "sampled": found.sampled.tolist(),
        "features": found.features.flatten().tolist(),
        "validation": values,
    }


def world_size() -> int:
    """Return the number of ranks; Lightning takes it out of the environment after its first trainer."""
    return WORLD_SIZE


def main() -> None:
    """Train, score and report from the first rank."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    results = {"scored": score(folder)}
    for name in sys.argv[2:] if world_size() > 1 else []:
        results[name] = train_one(name, folder)
    if os.environ.get("RANK", "0") == "0":
        (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
