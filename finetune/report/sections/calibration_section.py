"""Calibration, selective prediction and prediction sets: what probabilities are good for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.errors import ConfigError
from finetune.evaluation.bootstrap import binomial_interval
from finetune.evaluation.predictions import Predictions
from finetune.report.html.blocks import Block, Cell, Column, Figure, Section, Table, Text
from finetune.report.html.svg import COLOURS, DASHES, draw_svg
from finetune.report.run_data import RunData
from finetune.uncertainty.conformal import ConformityScore, fit_conformal
from finetune.uncertainty.selective import accuracy_threshold, risk_coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COVERAGES, ACCURACIES = (0.8, 0.9, 0.95, 0.99), (0.9, 0.95, 0.98, 0.99)
WHEN = ("before", "after")
SCORES: tuple[ConformityScore, ...] = ("lac", "aps")


def calibration_section(run_data: RunData) -> Section | None:
    """Return what scaling changed, and what the probabilities are good for; None without test and validation."""
    val, test = run_data.splits.get("val"), run_data.splits.get("test")
    if val is None or test is None or not val.num or not test.num:
        return None
    blocks: list[Block] = list(scaling_blocks(run_data.document.get("calibration")))
    if val.multilabel:
        blocks.append(Text("Sets of labels and thresholds of confidence are for one label per image."))
    else:
        blocks += [*selective_blocks(val, test), *conformal_blocks(val, test)]
    lead = "What a probability is good for: promises are made on validation images, and kept or broken on test images."
    return Section("calibration", "Prediction sets and selective prediction", tuple(blocks), lead)


def scaling_blocks(document: dict[str, Any] | None) -> Iterator[Block]:
    """Yield what scaling changed."""
    if not document:
        yield Text("This run is older than calibration: its probabilities are as the network gives them.")
        return
    if document["method"] == "none":
        yield Text(document["note"] or "Probabilities are as the network gives them (calibration=none).")
        return
    how = f"temperature {document['temperature']:.3g}" if document["temperature"] else "a scale and a shift per label"
    rows = tuple(
        (split, *(document[split][name][when] for name in ("loss", "calibration_error") for when in WHEN))
        for split in ("val", "test")
    )
    columns = (Column("split"), *(Column(f"{name}, {when}", 4) for name in ("loss", "calibration error")
                                  for when in WHEN))  # fmt: skip
    yield Table(f"Scaled by {how}", columns, rows,
                f"Fitted on {document['n']:,} validation images, whose values are flattered by that.")  # fmt: skip


def selective_blocks(val: Predictions, test: Predictions) -> Iterator[Block]:
    """Yield how accuracy grows where unsure images are left to a person."""
    sure, right = test.confidence, test.right
    found = risk_coverage(sure, right)

    def plot(axes: "Axes") -> None:
        axes.plot(found.coverage, found.risk, DASHES[0], color=COLOURS[0])
        axes.set(xlabel="share of images decided, the surest first", ylabel="errors among them", ylim=(0, None))

    said = f"Errors rise to {found.risk[-1]:.3f} when all images are decided; {found.area:.4f} in the mean."
    yield Figure("Risk-coverage curve", draw_svg(plot, name="risk-coverage"), said, "On the test split.")
    rows: list[tuple[Cell, ...]] = []
    for target in ACCURACIES:
        threshold = accuracy_threshold(val.confidence, val.right, target)
        taken = sure >= threshold.value
        number = int(taken.sum())
        rows.append((target, threshold.value if threshold.coverage else None, threshold.coverage,
                     number / len(sure), float(right[taken].mean()) if number else None, number))  # fmt: skip
    columns = (Column("target accuracy"), Column("decide from", 3), Column("decided, validation", 3),
               Column("decided, test", 3), Column("accuracy, test", 3), Column("images"))  # fmt: skip
    yield Table("Selective prediction: leave unsure images to a person", columns, tuple(rows),
                "The target holds on new images like these with 95 % confidence; a dash: validation cannot promise it. "
                "finetune predict target_accuracy=0.98 marks which images to decide.")  # fmt: skip


def conformal_blocks(val: Predictions, test: Predictions) -> Iterator[Block]:
    """Yield how large sets of labels are that hold the true one as often as promised."""
    rows: list[tuple[Cell, ...]] = []
    for coverage in COVERAGES:
        for score in SCORES:
            try:
                found = fit_conformal(val.probabilities, val.targets, coverage, score)
            except ConfigError:  # validation is too small for this promise
                rows.append((coverage, score.upper(), None, None, None, None, None))
                continue
            sets = found.sets(test.probabilities)
            held = sets[np.arange(test.num), test.targets]
            low, high = binomial_interval(np.array([held.sum()]), np.array([test.num]))
            worst = min(float(held[test.targets == k].mean()) for k in np.unique(test.targets))
            rows.append((coverage, score.upper(), float(held.mean()), float(low[0]), float(high[0]), worst,
                         float(sets.sum(axis=1).mean())))  # fmt: skip
    columns = (Column("promised"), Column("by"), Column("held, test", 3), Column("low", 3), Column("high", 3),
               Column("worst class", 3), Column("labels in a set", 2))  # fmt: skip
    yield Table("Prediction sets that hold the true label", columns, tuple(rows),
                "LAC: all labels of at least some probability; APS: the most probable ones up to some sum. The promise "
                "is for all classes together. finetune predict coverage=0.9 writes the sets.", key=False)  # fmt: skip
