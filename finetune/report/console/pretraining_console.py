"""A pretraining on the screen: what is about to be trained, and where its weights are."""

from typing import Any

from rich.console import Console

from finetune.data.sources.unlabelled import is_unlabelled
from finetune.data.table import ImageTable
from finetune.runs.run import Run
from finetune.training.pretraining.autoencoder import MaskedAutoencoder


def describe_pretraining(table: ImageTable, config: dict[str, Any], model: MaskedAutoencoder) -> None:
    """Print what is about to be trained."""
    rows, columns = model.grid_size
    seen = min(max(1, int(rows * columns * (1 - model.ratio))), rows * columns - 1)
    kind = "without labels" if is_unlabelled(table) else "of the training split, without their labels"
    name, weights = config["model"]["name"], config["model"]["weights"]
    Console(highlight=False).print(
        f"{len(table.rows('train')):,} images {kind}; {name}, weights: {weights}; "
        f"{seen} of {rows * columns} patches are seen",
        soft_wrap=True,
    )


def show_pretraining_end(run: Run, config: dict[str, Any], seconds: float) -> None:
    """Print where the weights are, and how they are used."""
    losses = ", ".join(
        f"{split} {scores['loss']['value']:.4f}" for split, scores in run.metrics.items() if split != "n"
    )
    name = config["model"]["name"]
    console = Console(highlight=False)
    for line in (
        f"loss      {losses} after {seconds:.0f} s",
        f"report    {run.report_file}",
        f"next      finetune model=timm model.name={name} model.weights={run.path / 'weights.safetensors'}",
    ):
        console.print(line, soft_wrap=True, markup=False)
