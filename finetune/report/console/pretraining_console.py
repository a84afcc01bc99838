"""A pretraining on the screen: what is about to be trained, and where its weights are."""

from rich.console import Console

from finetune.config.settings.training_groups import ModelSettings
from finetune.data.sources.unlabelled import is_unlabelled
from finetune.data.table import ImageTable
from finetune.runs.run import Run
from finetune.training.pretraining.autoencoder import MaskedAutoencoder


def describe_pretraining(table: ImageTable, backbone: ModelSettings, model: MaskedAutoencoder) -> None:
    """Print what is about to be trained."""
    rows, columns = model.grid_size
    seen = min(max(1, int(rows * columns * (1 - model.ratio))), rows * columns - 1)
    kind = "without labels" if is_unlabelled(table) else "of the training split, without their labels"
    said = f"{len(table.rows('train')):,} images {kind}; {backbone.name}, weights: {backbone.weights}"
    Console(highlight=False).print(f"{said}; {seen} of {rows * columns} patches are seen", soft_wrap=True)


def show_pretraining_end(run: Run, name: str, seconds: float) -> None:
    """Print where the weights are, and how they are used."""
    losses = ", ".join(
        f"{split} {scores['loss']['value']:.4f}" for split, scores in run.metrics.items() if split != "n"
    )
    console = Console(highlight=False)
    for line in (
        f"loss      {losses} after {seconds:.0f} s",
        f"report    {run.report_file}",
        f"next      finetune model=timm model.name={name} model.weights={run.path / 'weights.safetensors'}",
    ):
        console.print(line, soft_wrap=True, markup=False)
