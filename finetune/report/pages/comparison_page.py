"""The page of a comparison: the verdict first, then metrics, classes, groups, and the images that decide."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetune.audit.image_stats import thumbnail
from finetune.data.image_stores import FileStore
from finetune.evaluation.compare.comparison import Comparison, RunPair
from finetune.evaluation.compare.gate import Verdict
from finetune.evaluation.compare.paired import LOWER_IS_BETTER, Difference
from finetune.report.html.blocks import Block, Cell, Column, Figure, Gallery, ImageBlock, Section, Table, Text, Tone
from finetune.report.html.svg import COLOURS, INK, draw_svg
from finetune.report.pages.comparison_summary import images, omission, verdict
from finetune.runtime.format import format_p

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN, ROWS = 18, 300
DIFFERENCE = (
    Column("baseline", 4),
    Column("candidate", 4),
    Column("difference", 4),
    Column("low", 4),
    Column("high", 4),
)


def comparison_sections(comparison: Comparison, gate: Sequence[tuple[str, Verdict]]) -> list[Section]:
    """Return the sections of the page."""
    found = [Section("verdict", "Verdict", tuple(verdicts(comparison, gate)))]
    for number, pair in enumerate(comparison.pairs):
        anchor = f"pair-{number}"
        lead = verdict(pair, comparison.baseline.name)
        title = f"{pair.name} against {comparison.baseline.name}" if len(comparison.pairs) > 1 else "Differences"
        found.append(Section(anchor, title, tuple(pair_blocks(pair)), lead))
    return found


def verdicts(comparison: Comparison, gate: Sequence[tuple[str, Verdict]]) -> Iterator[Block]:
    """Yield what is to be known first."""
    if (missing := omission(comparison)) is not None:
        yield Text(missing, "warning")
    for pair in comparison.pairs:
        better = pair.changes.metrics[pair.key].value > 0
        tone: Tone = "plain" if not pair.shown else "good" if better else "bad"
        yield Text(verdict(pair, comparison.baseline.name), tone)
    for name, each in gate:
        word = "passes" if each.passed else "fails"
        yield Text(f"{name} {word} the gate {each.condition}. {each.reason}.", "good" if each.passed else "bad")
    yield forest(comparison)
    yield overview(comparison)


def forest(comparison: Comparison) -> Figure:
    """Return the differences of all candidates with their intervals."""
    name = comparison.pairs[0].key
    changes = [pair.changes.metrics[name] for pair in comparison.pairs]

    def plot(axes: "Axes") -> None:
        places = np.arange(len(changes))[::-1]
        for place, change in zip(places, changes, strict=True):
            axes.plot([change.low, change.high], [place, place], color=COLOURS[0])
            axes.plot([change.value], [place], "o", color=COLOURS[0])
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(places, [pair.name for pair in comparison.pairs])
        axes.set_xlabel(f"difference in {name.replace('_', ' ')}, 95 % interval")

    said = "; ".join(f"{pair.name} {change.value:+.4f} ({change.low:+.4f} to {change.high:+.4f})"
                     for pair, change in zip(comparison.pairs, changes, strict=True))  # fmt: skip
    height = 110 + 26 * len(changes)
    return Figure("Difference to the baseline", draw_svg(plot, width=640, height=height, name="forest"), said)


def overview(comparison: Comparison) -> Table:
    """Return a row for each candidate."""
    name = comparison.pairs[0].key
    rows = tuple(
        (pair.name, change.second, change.value, change.low, change.high, pair.test.won, pair.test.lost,
         format_p(pair.test.p), format_p(pair.corrected), pair.agreement, pair.first.num)
        for pair in comparison.pairs for change in [pair.changes.metrics[name]]
    )  # fmt: skip
    columns = (
        Column("run"), Column(name.replace("_", " "), 4), *DIFFERENCE[2:],
        Column("won", hint="images that this run alone has right"),
        Column("lost", hint="images that the baseline alone has right"),
        Column("p", hint="McNemar's exact test"), Column("p, corrected", hint="by Holm, for the number of runs"),
        Column("agreement", 3, hint="share of images of which both say the same"), Column("images"),
    )  # fmt: skip
    value = comparison.pairs[0].changes.metrics[name].first
    return Table("Runs", columns, rows, f"Baseline: {comparison.baseline.name}, {name.replace('_', ' ')} {value:.4f}.")


def pair_blocks(pair: RunPair) -> Iterator[Block]:
    """Yield all there is to say of a pair."""
    metrics = tuple(
        (name, *numbers(each), mark(each, name) if pair.decides(name) else "")
        for name, each in pair.changes.metrics.items()
    )
    yield Table("Metrics", (Column("metric"), *DIFFERENCE, Column("")), metrics,
                "Intervals of 95 %, from resamples of the images that are the same for both.")  # fmt: skip
    classes = tuple(
        (label, *numbers(row["recall"]), mark(row["recall"]), row["precision"].value, row["f1"].value)
        for label, row in pair.changes.classes.items()
    )
    yield Table("Recall of each class", (Column("class"), *DIFFERENCE, Column(""), Column("precision, difference", 4),
                                         Column("F1, difference", 4)), classes)  # fmt: skip
    for column, groups in pair.groups.items():
        rows = tuple((group, number, *numbers(each), mark(each)) for group, (number, each) in groups.items())
        title = f"Share that is right, by {column}"
        yield Table(title, (Column(column), Column("images"), *DIFFERENCE, Column("")), rows)
    yield from decisive(pair, pair.won(), "Won: the candidate alone is right")
    yield from decisive(pair, pair.lost(), "Lost: the baseline alone is right")


def numbers(each: Difference) -> tuple[Cell, ...]:
    """Return a difference as the cells of its columns."""
    return each.first, each.second, each.value, each.low, each.high


def mark(each: Difference, name: str = "") -> str:
    """Return in a word what an interval that leaves out 0 says."""
    if not each.decided:
        return ""
    return "better" if (each.value < 0) == (name in LOWER_IS_BETTER) else "worse"


def decisive(pair: RunPair, rows: npt.NDArray[np.int64], title: str) -> Iterator[Block]:
    """Yield images on which the two differ, as pictures and as a table."""
    if not len(rows):
        return
    store, entries = FileStore(), images(pair, rows[:ROWS])
    pictures = tuple(
        ImageBlock(
            each["id"], thumbnail(store, each["path"]), description=f"labelled {each['label']}",
            facts={"label": each["label"], "baseline": f"{each['baseline']} {each['baseline_probability']:.2f}",
                   "candidate": f"{each['candidate']} {each['candidate_probability']:.2f}"},
        ) for each in entries[:SHOWN]
    )  # fmt: skip
    gone = sum(picture.image is None for picture in pictures)
    missing = f"{gone} of these {len(pictures)} image files are no longer where they were." if gone else ""
    yield Gallery(title, pictures, missing) if gone < len(pictures) else Text(f"{title}. {missing}")
    cells = tuple(tuple(value for name, value in each.items() if name != "path") for each in entries)
    columns = (Column("image"), Column("label"), Column("baseline"), Column("sure", 3), Column("candidate"),
               Column("sure ", 3))  # fmt: skip
    more = f"The first {ROWS} of {len(rows):,}; all are in compare.json." if len(rows) > ROWS else ""
    yield Table(f"{title}: {len(rows):,} images", columns, cells, more)
