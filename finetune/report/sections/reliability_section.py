"""Reliability: whether probabilities can be taken literally."""

from finetune.evaluation.curves.reliability import Reliability, reliability_bins
from finetune.evaluation.predictions import Predictions
from finetune.report.figures.reliability_figure import reliability_figure
from finetune.report.html.blocks import Column, Section, Table
from finetune.report.run_data import RunData
from finetune.report.sections.section_split import NAMES, about_split
from finetune.runtime.format import format_count, known

SLIGHT = 0.01


@about_split
def reliability_section(_: RunData, split: str, predictions: Predictions) -> Section | None:
    """Show how often the network is right at each probability it gives."""
    bins = reliability_bins(predictions)
    what = "every label" if predictions.multilabel else "the most probable class"
    count = format_count(predictions.num)
    said = f"Can probabilities be taken literally? {_words(bins)}"
    lead = f"{said} This is about {what} of each image of the {NAMES[split]} split ({count})."
    return Section("reliability", "Calibration", (reliability_figure(bins), _table(bins)), lead)


def _words(bins: Reliability) -> str:
    gap = bins.overconfidence
    if abs(gap) < SLIGHT:
        sure = "On the whole, probabilities are as high as they should be"
    else:
        sure = f"On the whole, probabilities are {abs(gap):.3f} too {'high' if gap > 0 else 'low'}"
    return f"{sure}; a single one is off by {bins.error:.3f} on average (expected calibration error)."


def _table(bins: Reliability) -> Table:
    columns = (
        *(Column("probability"), Column("decisions")),
        Column("mean probability", digits=3),
        Column("came true", digits=3, bar=True),
    )
    width = bins.low[1] - bins.low[0]
    names = [*(f"{low:.2f} – {low + width:.2f}" for low in bins.low[:-1].tolist()), "1 exactly"]
    cells = zip(names, *(part.tolist() for part in (bins.counts, bins.confidence, bins.rightness)), strict=True)
    rows = tuple((name, count, known(sure), known(right)) for name, count, sure, right in cells if count)
    return Table("Probability and how often it came true", columns, rows)
