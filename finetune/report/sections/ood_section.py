"""Out-of-distribution detection: how many images are accepted, and how well others were told apart."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.report.html.blocks import Block, Cell, Column, Figure, Section, Table, Text
from finetune.report.html.svg import COLOURS, DASHES, INK, draw_svg
from finetune.report.run_data import RunData

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMES = {
    "mahalanobis": "distance to the nearest class mean (Mahalanobis)",
    "knn": "distance to the nearest training images",
    "pca": "what a linear autoencoder does not reproduce",
    "energy": "energy of the logits",
    "msp": "largest probability",
}


def ood_section(run_data: RunData) -> Section | None:
    """Tell how images unlike those of training are told; None where the run does not tell them."""
    found = run_data.document.get("ood")
    if not found:
        return None
    blocks: list[Block] = [Text(note, tone="warning") for note in found.get("notes", [])]
    if found.get("accepted"):
        blocks.append(accepted_table(found))
    if "histogram" in found:
        blocks.append(histogram_figure(found))
    blocks += ood_blocks(found)
    return Section("unlike", "Out-of-distribution detection", tuple(blocks), _lead_of(found))


def _lead_of(found: Mapping[str, Any]) -> str:
    """Return how images are told, in a sentence."""
    if "kind" not in found:
        return "The run keeps nothing that tells images unlike those of training (ood=none); logits alone are compared."
    behind = f", fitted on {found['fitted_on']:,} training images" if found["fitted_on"] else ""
    return (
        "Out-of-distribution score: how unlike the training images an image is. "
        f"It is called unlike where the score ({_NAMES[found['kind']]}{behind}) is above "
        f"{found['threshold']:.4g}, which was set so that {found['accept']:.4g} of images like the "
        f"{found['held_out']:,} validation images are not."
    )


def accepted_table(found: Mapping[str, Any]) -> Table:
    """Return how many images of each kind are accepted."""
    rows: list[tuple[Cell, ...]] = [
        (split, share["value"], share["low"], share["high"]) for split, share in found["accepted"].items()
    ]
    if "called_unlike" in found:
        share = found["called_unlike"]
        rows.append((found["data"], 1 - share["value"], 1 - share["high"], 1 - share["low"]))
    columns = (Column("images"), Column("accepted", 3), Column("low", 3), Column("high", 3))
    return Table(
        "Accepted as in-distribution (like the training images)", columns, tuple(rows), "With exact 95 % intervals."
    )


def histogram_figure(found: Mapping[str, Any]) -> Figure:
    """Draw the scores of the run's images and of the others, and the threshold."""
    bins = found["histogram"]
    edges = np.array(bins["edges"])

    def plot(axes: "Axes") -> None:
        for place, (name, label) in enumerate((("own", "evaluated images"), ("others", str(found["data"])))):
            counts = np.array(bins[name], float)
            axes.stairs(counts / max(counts.sum(), 1), edges, color=COLOURS[place], linestyle=DASHES[place],
                        linewidth=1.6, label=label)  # fmt: skip
        axes.axvline(found["threshold"], color=INK, linewidth=1, linestyle=":", label="threshold")
        axes.set(xlabel="score", ylabel="share of images")
        axes.legend()

    share = found["called_unlike"]["value"]
    said = f"Of the images of {found['data']} {share:.1%} lie above the threshold {found['threshold']:.4g}."
    return Figure(
        "Out-of-distribution scores", draw_svg(plot, name="unlike"), said,
        "The outermost bins hold what lies beyond them as well."
    )  # fmt: skip


def ood_blocks(found: Mapping[str, Any]) -> Iterator[Block]:
    """Yield how well each score tells the other images from the run's own."""
    if "scores" not in found:
        return
    rows: list[tuple[Cell, ...]] = [
        (_NAMES[kind], *(scores[name][end] for name in ("auroc", "fpr_at_95_tpr") for end in ("value", "low", "high")))
        for kind, scores in found["scores"].items()
    ]
    columns = (
        Column("score"),
        Column("AUROC", 3, hint="how likely another image has a higher score than an evaluated one"),
        Column("low", 3), Column("high", 3),
        Column("FPR at 95 % TPR", 3, hint="others accepted where 95 % of the evaluated images are"),
        Column("low (FPR)", 3), Column("high (FPR)", 3),
    )  # fmt: skip
    count = found["n"]
    title = f"{count['others']:,} images of {found['data']} told from {count['own']:,} evaluated images"
    yield Table(title, columns, tuple(rows), "With 95 % bootstrap intervals.")
