"""finetune benchmark: measures a configuration on this machine and says what limits it."""

import tempfile
from pathlib import Path

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from finetune.commands.run_start import build_training
from finetune.config.compose import to_dict
from finetune.data.sequences.frame_store import require_single_images
from finetune.report.console.benchmark_console import show_throughput
from finetune.runs.run import write_json
from finetune.runtime.log_filters import quieten
from finetune.training.build import build_callbacks, known_files, load_network, load_table, open_cache
from finetune.training.callbacks.progress import PhaseProgressBar
from finetune.training.phases import build_strategy, choose_phase
from finetune.training.policies import resolve_words
from finetune.training.throughput.advice import measure_phase
from finetune.training.throughput.throughput import Subject


def benchmark(cfg: DictConfig) -> None:
    """Measure a phase of a configuration, print what limits it and what to change, and write the numbers."""
    config = resolve_words(to_dict(cfg), list(HydraConfig.get().overrides.task))
    quieten()
    pl.seed_everything(config["seed"], verbose=False)
    cache = open_cache(config["cache"])
    table = load_table(config["data"], known=known_files(cache))
    require_single_images(table, "finetune benchmark", "Measure on the frames as images: data=folder, or data=csv.")
    strategy = build_strategy(config["strategy"])
    network = load_network(config, strategy, table)
    recipe, images = build_training(config, table, network, cache)
    callbacks = build_callbacks(config["callbacks"] or {}, PhaseProgressBar)
    with tempfile.TemporaryDirectory() as folder:
        phase = choose_phase(strategy, config["phase"])
        subject = Subject(network, phase, images, recipe, batches=config["batches"], folder=Path(folder))
        report = measure_phase(subject, callbacks(), config["repeats"])
    output = Path(config["output"]).expanduser()
    write_json(output, report.document())
    show_throughput(report, output, Console())
