"""finetune benchmark: measures a configuration on this machine and says what limits it."""

import tempfile
from pathlib import Path

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from finetune.commands.run_start import build_training
from finetune.config.resolve import resolve
from finetune.config.settings.phases import choose_phase
from finetune.config.settings.roots import BenchmarkRootSettings
from finetune.data.sequences.frame_store import require_single_images
from finetune.report.console.benchmark_console import show_throughput
from finetune.runs.run import write_json
from finetune.runtime.log_filters import quieten
from finetune.training.build import build_callbacks, known_files, load_network, load_table, open_cache
from finetune.training.callbacks.progress import PhaseProgressBar
from finetune.training.throughput.advice import measure_phase
from finetune.training.throughput.throughput import PhaseBenchmark


def benchmark(cfg: DictConfig) -> None:
    """Measure a phase of a configuration, print what limits it and what to change, and write the numbers."""
    settings = resolve(cfg, BenchmarkRootSettings, list(HydraConfig.get().overrides.task), tell=True)
    quieten()
    pl.seed_everything(settings.seed, verbose=False)
    cache = open_cache(settings.cache)
    table = load_table(settings.data, known=known_files(cache))
    require_single_images(table, "finetune benchmark", "Measure on the frames as images: data=folder, or data=csv.")
    network = load_network(settings, table)
    recipe, images = build_training(settings, table, network, cache)
    callbacks = build_callbacks(settings.callbacks, PhaseProgressBar)
    with tempfile.TemporaryDirectory() as folder:
        phase = choose_phase(settings.strategy, settings.phase)
        subject = PhaseBenchmark(network, phase, images, recipe, batches=settings.batches, folder=Path(folder))
        report = measure_phase(subject, callbacks(), settings.repeats)
    output = Path(settings.output).expanduser()
    write_json(output, report.document())
    show_throughput(report, output, Console())
