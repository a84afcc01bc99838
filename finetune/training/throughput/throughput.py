"""Throughput of a phase on this machine: its input, its computation, a bare loop, and the real run."""

import itertools
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from finetune.config.settings.phases import Phase
from finetune.data.datamodule import ImageBatch, ImageData
from finetune.data.gpu.transform import DeferredImages
from finetune.features.extract import FeatureSettings, FeatureSource
from finetune.models.network import Network
from finetune.runs.history import RunHistory
from finetune.runtime.device import DevicePass
from finetune.runtime.precision import autocast
from finetune.training.callbacks.epoch_metrics import MetricsCallback
from finetune.training.fit import Recipe, build_classifier
from finetune.training.freezing import apply_phase
from finetune.training.resume import ResumePoint
from finetune.training.trainer import build_trainer

# an image's tensors that wait for the backward pass, and what is alive beside them
_MARGIN = 1.3
_MOST = 4096


class PhaseBenchmark:
    """A phase of a strategy, set up as for a run, of which single parts can be timed.

    A phase in which the backbone stands still is timed as the pass that computes its features.
    """

    def __init__(
        self, network: Network, phase: Phase, images: ImageData, recipe: Recipe, *, batches: int, folder: Path
    ) -> None:
        """Set the phase up.

        Args:
            network: The network; it is trained in place.
            phase: What moves.
            images: The images.
            recipe: Loss, optimizer and machine.
            batches: Batches per measurement, after one that warms up.
            folder: Where the real run writes.
        """
        self.network = network
        self.phase = phase
        self.images = images
        self.recipe = recipe
        self.batches = batches
        self.folder = folder
        apply_phase(network, phase)
        self.classifier = build_classifier(network, phase, recipe, 0, ResumePoint())
        trainer = build_trainer(recipe.trainer, folder=folder, logger=False, enable_progress_bar=False)
        self.device = trainer.strategy.root_device
        self.rounds = itertools.count()

    @property
    def trains(self) -> bool:
        """Whether there is a backward pass."""
        return not self.phase.backbone_frozen

    def loader(self) -> Iterable[ImageBatch]:
        """Return batches of another epoch at each call."""
        loader = self.images.loader("train", augmented=self.trains)
        batches: Any = loader.batch_sampler
        batches.set_epoch(next(self.rounds))
        return loader

    def endless(self) -> Iterator[ImageBatch]:
        """Yield batches as long as they are wanted."""
        while True:
            yield from self.loader()

    def made(self) -> Iterator[ImageBatch]:
        """Yield batches whose images are made, as long as they are wanted."""
        for batch in self.endless():
            images: Any = batch["image"]
            yield {**batch, "image": images.to(self.device) if isinstance(images, DeferredImages) else images}

    def pipeline(self) -> float:
        """Return the images per second that are read, decoded and transformed."""
        stream = self.made()
        next(stream)
        self.wait()
        started = time.perf_counter()
        count = sum(len(next(stream)["row"]) for _ in range(self.batches))
        self.wait()
        return count / (time.perf_counter() - started)

    def compute(self, batch: ImageBatch) -> float:
        """Return the images per second that are computed, of one batch again and again."""
        return self.timed_loop(itertools.repeat(batch))

    def bare(self) -> float:
        """Return the images per second of a loop of a few lines over the real batches."""
        return self.timed_loop(self.endless())

    def timed_loop(self, stream: Iterable[ImageBatch]) -> float:
        """Return the images per second of steps on batches."""
        images, seconds, _ = self.timed_steps(stream)
        return images / seconds

    def timed_steps(self, stream: Iterable[ImageBatch]) -> tuple[int, float, float]:
        """Return the images of some steps, after one that warms up, and the seconds of the clock and the processor."""
        self.network.to(self.device)
        step = self.training_step() if self.trains else self.feature_step()
        iterator = iter(stream)
        step(next(iterator))
        self.wait()
        count, started, busy = 0, time.perf_counter(), time.process_time()
        for batch in itertools.islice(iterator, self.batches):
            step(batch)
            count += len(batch["row"])
        self.wait()
        return count, time.perf_counter() - started, time.process_time() - busy

    def feature_step(self) -> Callable[[ImageBatch], None]:
        """Return a step that computes features."""
        self.network.eval()

        def step(batch: ImageBatch) -> None:
            with torch.no_grad(), autocast(self.device, self.recipe.trainer.precision):
                self.network.backbone(self.on_device(batch)["image"])

        return step

    def training_step(self) -> Callable[[ImageBatch], None]:
        """Return a step that trains, as written by hand."""
        settings = self.recipe.trainer
        self.network.train()
        optimizer = self.classifier.build_optimizer(self.network)
        moving = [value for value in self.network.parameters() if value.requires_grad]
        scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "16-mixed")

        def step(batch: ImageBatch) -> None:
            moved = self.on_device(batch)
            moved = self.recipe.mixing(moved) if self.recipe.mixing is not None else moved
            with autocast(self.device, settings.precision):
                loss = self.recipe.loss(self.network(moved["image"]), moved["target"])
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            if settings.gradient_clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(moving, settings.gradient_clip)
            scaler.step(optimizer)
            scaler.update()

        return step

    def on_device(self, batch: ImageBatch) -> ImageBatch:
        """Return a batch on the device, laid out as the network is."""
        moved = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        moved["image"] = moved["image"].contiguous(memory_format=self.classifier.memory_format)
        return moved

    def run(self, callbacks: Sequence[Callback]) -> float:
        """Return the images per second of the real thing: the trainer with all that it does, or the features' pass."""
        return self.timed_run(callbacks, self.loader()) if self.trains else self.timed_pass()

    def timed_pass(self) -> float:
        """Return the images per second of a pass that computes features."""
        rows = self.images.table.rows("train")[: (self.batches + 1) * self.images.eval_batch_size]
        device_pass = DevicePass(self.device, self.recipe.trainer.precision)
        source = FeatureSource(self.network, self.images, FeatureSettings(), device_pass)
        started = time.perf_counter()
        source.features(rows)
        return len(rows) / (time.perf_counter() - started)

    def timed_run(self, callbacks: Sequence[Callback], loader: Any) -> float:
        """Return the images per second of the trainer on given batches."""
        table, clock = self.images.table, StepTimer(self)
        metrics = MetricsCallback(
            table.task, table.num_classes, RunHistory(self.folder / "metrics.csv"), self.recipe.trainer.log_every
        )
        apply_phase(self.network, self.phase)
        trainer = build_trainer(
            self.recipe.trainer,
            folder=self.folder,
            max_epochs=10**6,
            max_steps=self.batches + 1,
            logger=False,
            callbacks=[*callbacks, metrics, clock],
            gradient_clip_val=self.recipe.trainer.gradient_clip,
            enable_progress_bar=False,
        )
        trainer.limit_val_batches = 0
        trainer.fit(build_classifier(self.network, self.phase, self.recipe, 0, ResumePoint()), train_dataloaders=loader)
        return clock.images / clock.seconds

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_memory(self) -> int:
        """Return the most bytes that were in use: on the GPU its own, else those of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def largest_batch(self, batch: ImageBatch) -> int:
        """Return how many images a batch may have: tried on a GPU, worked out from what a step keeps on the CPU."""
        if self.device.type == "cuda":
            return self.tried_batch(batch)
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        fixed = 4 * sum(value.numel() * value.element_size() for value in self.network.parameters())
        return max(1, int((free - fixed) / (self.kept_bytes(batch) * _MARGIN / len(batch["row"]))))

    def kept_bytes(self, batch: ImageBatch) -> int:
        """Return how many bytes of a batch's tensors wait for the backward pass, or are the largest without one."""
        kept: dict[int, int] = {}

        def pack(value: Tensor) -> Tensor:
            if value.device.type == self.device.type and not isinstance(value, nn.Parameter):
                kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        moved = self.on_device(batch)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            if not self.trains:
                moved["image"].requires_grad_()
            self.recipe.loss(self.network(moved["image"]), moved["target"])
        # without a backward pass two of the largest tensors are alive at a time
        return sum(kept.values()) if self.trains else 2 * max(kept.values())

    def tried_batch(self, batch: ImageBatch) -> int:
        """Return the largest power of two of images whose step the GPU has room for."""
        step = self.training_step() if self.trains else self.feature_step()
        size = 1
        while size < _MOST:
            grown = {name: repeated(value, 2 * size) for name, value in batch.items()}
            try:
                step(grown)
                self.wait()
            except torch.OutOfMemoryError:
                break
            finally:
                torch.cuda.empty_cache()
            size *= 2
        return size


def repeated(value: Tensor, count: int) -> Tensor:
    """Return so many rows of a tensor, from the start again where it has fewer."""
    return value[torch.arange(count) % len(value)]


class StepTimer(Callback):
    """Times the steps of a run after the first one."""

    def __init__(self, subject: PhaseBenchmark) -> None:
        """Time a subject's run."""
        self.subject = subject
        self.started = self.seconds = 0.0
        self.images = -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: ImageBatch, batch_idx: int
    ) -> None:
        """Start the clock after the first step, and read it after each other one."""
        if self.images < 0:
            self.subject.wait()
            self.started, self.images = time.perf_counter(), 0
            return
        self.images += len(batch["row"])
        if trainer.global_step > self.subject.batches:
            self.subject.wait()
            self.seconds = time.perf_counter() - self.started


def interleave(measures: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Return the values of measurements that take turns, so that a change of the machine's load meets all of them."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def median_ratio(values: Sequence[float], references: Sequence[float]) -> float:
    """Return the median of the ratios of measurements that were taken in the same turn."""
    return statistics.median(value / reference for value, reference in zip(values, references, strict=True))
