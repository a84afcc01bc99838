"""Advice from the measurements of a phase: what limits it, and what to change."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pytorch_lightning.callbacks import Callback

from finetune.training.throughput.throughput import PhaseBenchmark, interleave, median_ratio

# below this, a ratio is more than noise
NEAR = 0.97
AMPLE = 1.2


@dataclass(frozen=True)
class ThroughputReport:
    """A phase on this machine; rates are in images per second.

    Attributes:
        phase: Its name.
        trains: False where the backbone stands still, and the rates are those of the pass that computes features.
        device: Where it computes.
        precision: In which precision.
        batch_size: Images per batch.
        workers: Processes that read images.
        pipeline: Rate of reading, decoding and transforming alone.
        compute: Rate of computing one batch again and again.
        bare: Rate of a loop of a few lines over real batches.
        run: Rate of the real run.
        run_to_bare: Median of the ratios of both, taken in turn.
        peak_memory: Bytes.
        largest_batch: Images.
    """

    phase: str
    trains: bool
    device: str
    precision: str
    batch_size: int
    workers: int
    pipeline: float
    compute: float
    bare: float
    run: float
    run_to_bare: float
    peak_memory: int
    largest_batch: int

    @property
    def limit(self) -> float:
        """The rate that input and computation allow: one after the other in one process, or side by side."""
        if self.workers == 0:
            return 1 / (1 / self.pipeline + 1 / self.compute)
        return min(self.pipeline, self.compute)

    @property
    def run_to_limit(self) -> float:
        """The real run's rate as a share of the limit."""
        return self.run / self.limit

    def document(self) -> dict[str, Any]:
        """Return all numbers and the advice."""
        return {**asdict(self), "limit": self.limit, "run_to_limit": self.run_to_limit, "advice": advice(self)}


def advice(report: ThroughputReport) -> list[str]:
    """Return what to change, most useful first; the settings are those of the command line."""
    found = [*input_advice(report), *compute_advice(report)]
    if report.trains and report.run_to_bare < NEAR:  # the loop around the computation costs more than it should
        found.append(
            "Metrics and callbacks slow the run: log less often (trainer.log_every=50), or do without callbacks."
        )
    return found or ["Nothing: the run is as fast as its computation."]


def input_advice(report: ThroughputReport) -> list[str]:
    """Return what helps where images come too slowly."""
    share = report.compute / report.pipeline
    if report.workers == 0 and report.device != "cpu":
        return ["Images are read in the training process: set data.workers=4 or more."]
    if report.workers and share > 1 / AMPLE:
        more = f"data.workers={2 * report.workers}"
        return [f"The input limits the run: try {more}, or data.pixel_cache=true, which decodes each image once."]
    if report.workers == 0 and share > 0.15:
        part = share / (1 + share)
        return [f"Reading images takes {part:.0%} of the time: data.pixel_cache=true decodes each image once."]
    return []


def compute_advice(report: ThroughputReport) -> list[str]:
    """Return what makes the computation itself faster."""
    found = []
    if report.device != "cpu" and report.precision == "32-true":
        found.append("Mixed precision is usually two to three times as fast on a GPU: trainer.precision=bf16-mixed.")
    if report.device == "cpu" and report.precision != "32-true":
        found.append("Mixed precision is usually slower on a CPU: trainer.precision=32-true.")
    if report.device != "cpu" and 4 * report.batch_size <= report.largest_batch:
        found.append(f"There is room for larger batches: data.batch_size={2 * report.batch_size} (and a higher rate).")
    if report.largest_batch < report.batch_size:
        found.append(
            f"Batches of {report.batch_size} may not fit: data.batch_size={report.largest_batch}, or "
            "model.grad_checkpointing=true."
        )
    if report.trains and report.device == "cpu":
        found.append("Without a GPU, strategy=frozen computes each image once and trains in seconds.")
    return found


def measure_phase(subject: PhaseBenchmark, callbacks: Sequence[Callback], repeats: int) -> ThroughputReport:
    """Return what the parts of a phase do per second, measured in turn."""
    batch = next(subject.made())
    found = interleave(
        {
            "pipeline": subject.pipeline,
            "compute": lambda: subject.compute(batch),
            "bare": subject.bare,
            "run": lambda: subject.run(callbacks),
        },
        repeats,
    )
    rates: dict[str, Any] = {name: statistics.median(values) for name, values in found.items()}
    peak = subject.peak_memory()
    return ThroughputReport(
        phase=subject.phase.name,
        trains=subject.trains,
        device=subject.device.type,
        precision=subject.recipe.trainer.precision,
        batch_size=len(batch["row"]),
        workers=subject.images.workers,
        run_to_bare=median_ratio(found["run"], found["bare"]),
        peak_memory=peak,
        largest_batch=subject.largest_batch(batch),
        **rates,
    )
