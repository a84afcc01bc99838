"""What a run is about to do: its images, its network and its phases, for the screen."""

from rich.console import RenderableType

from finetune.config.settings.roots import TrainSettings
from finetune.data.table import ImageTable
from finetune.models.network import Network
from finetune.report.run_summary import DataSummary, ModelSummary, PhaseSummary, start_summary
from finetune.training.fit import Recipe
from finetune.training.freezing import moving_parameters


def describe_start(settings: TrainSettings, table: ImageTable, network: Network, recipe: Recipe) -> RenderableType:
    """Return what is about to be trained."""
    counts = {label: number for label, number in table.counts()["train"].items()}
    ordered = sorted(counts.items(), key=lambda item: item[1])
    sizes = dict(network.named_parameters())
    phases = [
        PhaseSummary(
            phase.name,
            phase.train,
            phase.fraction,
            sum(sizes[name].numel() for name in moving_parameters(network, phase)),
            1 if recipe.solves(phase) else phase.epochs,
            phase.lr or recipe.optimizer.lr,
            phase.layer_decay,
            phase.backbone_frozen,
            recipe.head.solver.solver if recipe.solves(phase) and recipe.head.solver else None,
        )
        for phase in settings.strategy.phases
    ]
    spec = network.spec
    unit = "images" if network.frames is None else f"sequences of up to {network.frames} frames"
    data = DataSummary(
        settings.data.named,
        table.task,
        table.num_classes,
        table.sizes(),
        ordered[0],
        ordered[-1],
        len(table.skipped),
        unit,
    )
    total = sum(value.numel() for value in sizes.values())
    model = ModelSummary(network.name, settings.model.weights, total, (spec.channels, spec.height, spec.width))
    return start_summary(data, model, settings.strategy.name, phases)
