"""Robustness: accuracy of each corruption in each severity, and an example."""

from typing import TYPE_CHECKING, Any

from finetune.data.table import ranged_store
from finetune.data.thumbnails import encode_jpeg
from finetune.data.transforms import eval_transform
from finetune.errors import FinetuneError
from finetune.evaluation.robustness.corruptions import corrupt
from finetune.report.console.robustness_console import sentence, words
from finetune.report.html.blocks import Block, Cell, Column, Figure, Gallery, ImageBlock, Section, Table
from finetune.report.html.svg import COLOURS, DASHES, FAINT, draw_svg
from finetune.report.run_data import RunData, read_spec
from finetune.report.sections.examples_section import find_store
from finetune.runtime.format import format_count, format_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Document = dict[str, Any]
_CAPTION = (
    "Severity goes from 1 (slight) to 5 (severe), with the strengths of ImageNet-C. Images are corrupted at the size "
    "that the network sees, and are shown in a single view. With 95 % intervals: the bootstrap draws whole images."
)
MARKS = "osD^v"
_SIDE = 200


def robustness_section(run_data: RunData) -> Section | None:
    """Tell how many answers stay right on corrupted images; None where that was not measured."""
    document = run_data.document.get("robustness")
    if not document:
        return None
    passes = f"{format_count(document['passes'], 'pass', 'passes')} over {format_count(document['n'])}"
    lead = f"{sentence(document)} {weakest(document)} Measured in {passes}."
    blocks: list[Block] = [_table_of(document), _figure_of(document), *example_of(run_data, document)]
    return Section("robustness", "Robustness to corruptions", tuple(blocks), lead)


def severities_of(document: _Document) -> list[str]:
    """Return the severities that were tried, the slightest first."""
    return sorted({severity for found in document["corruptions"].values() for severity in found["severities"]})


def weakest(document: _Document) -> str:
    """Return in a sentence which corruption costs most."""
    name, found = min(document["corruptions"].items(), key=lambda entry: entry[1]["mean"]["value"])
    return f"What costs most is {words(name)}: {found['mean']['value']:.3f} on average."


def example_of(run_data: RunData, document: _Document) -> list[Gallery]:
    """Return an image in each way that it was shown to the network, in the middle severity; none where it is gone."""
    spec, predictions = read_spec(run_data.run), run_data.splits.get(document["split"])
    store = find_store(run_data, predictions) if predictions is not None and predictions.num else None
    if spec is None or predictions is None or store is None:
        return []
    name, path = str(predictions.ids[0]), str(predictions.paths[0])
    try:
        picture = ranged_store(store, spec.value_range).open(path, spec.channels)
        image = eval_transform(spec).pixels(picture)
    except (FinetuneError, OSError, IndexError, ValueError):
        return []
    severities = severities_of(document)
    severity = int(severities[len(severities) // 2])
    shown = {"clean": image}
    for each in document["corruptions"]:
        shown[words(each)] = corrupt(image, each, severity, seed=document["seed"], key=name)
    pictures = (ImageBlock(how, encode_jpeg(each, _SIDE), description=f"{name}, {how}") for how, each in shown.items())
    return [Gallery(f"{name} in severity {severity}", tuple(pictures), "As the network was shown it.")]


def _table_of(document: _Document) -> Table:
    """Return the accuracies, the weakest corruption first."""
    severities = severities_of(document)
    columns = [Column("corruption"), Column("mean", digits=3, bar=True, hint="of all severities"), Column("interval")]
    for severity in severities:
        columns += [Column(f"severity {severity}", digits=3, bar=True), Column(f"interval ({severity})")]
    rows: list[tuple[Cell, ...]] = []
    for name, found in sorted(document["corruptions"].items(), key=lambda entry: entry[1]["mean"]["value"]):
        scores = [found["mean"], *(found["severities"][severity] for severity in severities)]
        cells = [cell for score in scores for cell in (score["value"], format_interval(score["low"], score["high"]))]
        rows.append((words(name), *cells))
    return Table("Accuracy on corrupted images", tuple(columns), tuple(rows), _CAPTION)


def _figure_of(document: _Document) -> Figure:
    """Draw the accuracy of each corruption over the severities, beside that of clean images."""
    places = [0, *map(int, severities_of(document))]
    clean = document["clean"]["value"]
    lines = {
        words(name): [clean, *(found["severities"][str(place)]["value"] for place in places[1:])]
        for name, found in document["corruptions"].items()
    }

    def plot(axes: "Axes") -> None:
        axes.axhline(clean, color=FAINT, linewidth=1)
        for number, (name, scores) in enumerate(lines.items()):
            turn = number // len(COLOURS)
            axes.plot(
                places, scores, DASHES[turn % len(DASHES)], color=COLOURS[number % len(COLOURS)],
                marker=MARKS[number % len(MARKS)], markersize=4, label=name,
            )  # fmt: skip
        axes.set_xticks(places, ["clean", *map(str, places[1:])])
        axes.set(xlabel="severity", ylabel="accuracy", ylim=(0, 1.02))
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)

    told = "; ".join(f"{name}: {', '.join(f'{score:.3f}' for score in scores)}" for name, scores in lines.items())
    return Figure(
        "Accuracy over severity", draw_svg(plot, width=620, height=320, name="robustness"), f"Clean first. {told}.",
        caption="The grey line is the accuracy on clean images.",
    )  # fmt: skip
