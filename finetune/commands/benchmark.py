"""The verb benchmark: measures a configuration on this machine and says what limits it.

It is a composition root, the only code of the benchmark that sees a config.
"""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.table import Table

from finetune.commands.run_start import build_training
from finetune.config.compose import to_dict
from finetune.data.cache.store import show_size
from finetune.data.sequences.frame_store import require_single_images
from finetune.errors import ConfigError, nearest
from finetune.runs.run import write_json
from finetune.runtime.log_filters import quieten
from finetune.training.build import build_callbacks, known_files, load_network, load_table, open_cache
from finetune.training.callbacks.progress import PhaseProgressBar
from finetune.training.phases import Phase, Strategy, build_strategy
from finetune.training.policies import resolve_words
from finetune.training.throughput.advice import Report, advice
from finetune.training.throughput.throughput import Subject, in_turn, median_ratio


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
        report = _measure(subject, callbacks(), config["repeats"])
    output = Path(config["output"]).expanduser()
    write_json(output, report.document())
    _show(report, output, Console())


def choose_phase(strategy: Strategy, name: str | None) -> Phase:
    """Return the phase of that name, or the last one, which is the longest as a rule.

    Raises:
        ConfigError: The strategy has no such phase.
    """
    names = [phase.name for phase in strategy.phases]
    if name is not None and name not in names:
        raise ConfigError(f"phase={name} is not a phase of {strategy.name} ({', '.join(names)}).{nearest(name, names)}")
    return strategy.phases[-1 if name is None else names.index(name)]


def _measure(subject: Subject, callbacks: Sequence[Callback], repeats: int) -> Report:
    """Return what the parts of a phase do per second, measured in turn."""
    batch = next(subject.made())
    found = in_turn(
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
    return Report(
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


def _show(report: Report, output: Path, console: Console) -> None:
    """Print the numbers and what to change."""
    what = "training" if report.trains else "features of a backbone at rest"
    table = Table(
        title=f"phase {report.phase}: {what}, {report.device}, {report.precision}, batches of {report.batch_size}"
    )
    for column in ("", "images/s", "of the limit"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {
        f"input alone ({report.workers} workers)": report.pipeline,
        "computation alone": report.compute,
        "limit of both": report.limit,
        "bare loop": report.bare,
        "real run": report.run,
    }
    for name, rate in rows.items():
        table.add_row(name, f"{rate:,.1f}", f"{rate / report.limit:.2f}")
    console.print(table)
    said = "tried" if report.device == "cuda" else "estimated"
    lines = [
        f"real run / bare loop: {report.run_to_bare:.3f}",
        f"peak memory: {show_size(report.peak_memory)}",
        f"largest batch that fits ({said}): {report.largest_batch:,} images",
        *(f"- {line}" for line in advice(report)),
        f"Written to {output}",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
