"""What a run is about to do: its images, its network and its phases, for the screen."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finetune.config.settings.phases import Phase
from finetune.config.settings.roots import TrainSettings
from finetune.data.table import ImageTable
from finetune.models.network import Network
from finetune.report.run_summary import facts_grid
from finetune.runtime.format import format_magnitude
from finetune.training.fit import Recipe
from finetune.training.freezing import moving_parameters

_MOVES = {
    "head": "head",
    "all": "all layers",
    "adapters": "adapters and head",
    "bias_norm": "biases, norms and head",
}


def describe_start(settings: TrainSettings, table: ImageTable, network: Network, recipe: Recipe) -> RenderableType:
    """Return what is about to be trained."""
    unit = "images" if network.frames is None else f"sequences of up to {network.frames} frames"
    counts = table.counts()["train"]
    data = data_lines(settings.data.named, table.task, table.sizes(), counts, skipped=len(table.skipped), unit=unit)
    sizes = {name: value.numel() for name, value in network.named_parameters()}
    spec = network.spec
    input_size = (spec.channels, spec.height, spec.width)
    model = model_line(network.name, settings.model.weights, sum(sizes.values()), input_size)
    phases = []
    for phase in settings.strategy.phases:
        moving = sum(sizes[name] for name in moving_parameters(network, phase))
        solver = recipe.head.solver.solver if recipe.solves(phase) and recipe.head.solver else None
        phases.append(phase_row(phase, moving, phase.lr or recipe.optimizer.lr, solver))
    return start_summary(data, model, settings.strategy.name, phases)


def data_lines(
    source: str,
    task: str,
    images: Mapping[str, int],
    counts: Mapping[str, int],
    *,
    skipped: int = 0,
    unit: str = "images",
) -> list[Text]:
    """Return what the images of a run are.

    Args:
        source: Where they come from.
        task: multiclass or multilabel.
        images: Number of images of each split, in the order shown.
        counts: Number of training images of each class, or label.
        skipped: Images left out because they cannot be read.
        unit: What is counted: images, or sequences.
    """
    splits = ", ".join(f"{split} {number:,}" for split, number in images.items())
    what = "classes" if task == "multiclass" else "labels, any number per image"
    (rare, fewest), *_, (frequent, most) = sorted(counts.items(), key=lambda item: item[1])
    balance = f"training {unit}: {fewest:,} of the rarest ({rare}) to {most:,} of the commonest ({frequent})"
    if fewest == most:
        balance = f"balanced: {most:,} training {unit} of each"
    lines = [Text(f"{source}: {splits} {unit}; {len(counts):,} {what}"), Text(balance)]
    return [*lines, *([Text(f"{skipped:,} unreadable {unit} left out", style="yellow")] if skipped else [])]


def model_line(name: str, weights: str, parameters: int, input_size: tuple[int, int, int]) -> str:
    """Return which network it is, where its weights come from, and the images (C, H, W) that it sees."""
    channels, height, width = input_size
    size = f"{height} px" if height == width else f"{height} x {width} px"
    size += f", {channels} channels" if channels != 3 else ""
    return f"{name}, weights: {weights}, {format_magnitude(parameters)} parameters, {size}"


def phase_row(phase: Phase, parameters: int, rate: float, solver: str | None = None) -> tuple[str, ...]:
    """Return a phase as a row: its name, what moves, how many parameters that is, its epochs and its rate.

    Args:
        phase: The phase.
        parameters: How many parameters move.
        rate: Full learning rate of the deepest backbone layer.
        solver: What finds the head's weights in place of the optimizer, in one epoch; None for nothing.
    """
    moves = _MOVES.get(phase.train, f"last {phase.fraction:.0%} of layers")
    moves += ", on cached features" if phase.backbone_frozen else ""
    told = f"{rate:g}" + (f" x {phase.layer_decay:g}/layer" if phase.layer_decay != 1 else "")
    told, epochs = (told, phase.epochs) if solver is None else (f"solved: {solver}", 1)
    return phase.name, moves, format_magnitude(parameters), str(epochs), told


def start_summary(data: Sequence[Text], model: str, strategy: str, phases: Sequence[tuple[str, ...]]) -> RenderableType:
    """Return what is about to be trained: images, network, and the phases of the strategy."""
    facts = facts_grid()
    for place, line in enumerate(data):
        facts.add_row("" if place else "data", line)
    facts.add_row("model", Text(model))
    facts.add_row("strategy", Text(strategy))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("phase", "moves", "parameters", "epochs", "rate"):
        table.add_column(name, justify="right" if name in ("parameters", "epochs") else "left")
    for phase in phases:
        table.add_row(Text(phase[0]), *phase[1:])
    return Group(facts, table)
