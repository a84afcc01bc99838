"""The page of an audit: what is worst comes first, with thumbnails of the clearest cases."""

from collections.abc import Iterator
from itertools import groupby

from finetune.audit.findings import KINDS, Findings
from finetune.audit.image_stats import thumbnail
from finetune.data.table import SPLITS
from finetune.report.html.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Fact,
    FactList,
    Gallery,
    ImageBlock,
    Section,
    Table,
    Text,
)

_SHOWN = 24  # pictures of a kind
_ROWS = 300
TITLES = {
    "leakage": "Data leakage across splits", "unreadable": "Unreadable files",
    "label_conflict": "Near-duplicates that disagree",
    "likely_mislabelled": "Label errors", "duplicate": "Near-duplicates", "outlier": "Outliers",
    "odd_file": "Odd files",
}  # fmt: skip
SEVERE = ("leakage", "unreadable", "label_conflict")


def audit_sections(findings: Findings, commands: str) -> list[Section]:
    """Return the sections of the page.

    Args:
        findings: What was found.
        commands: What to type next.
    """
    counts = findings.counts()
    found = [Section("summary", "Summary", (figures(counts), balance(findings), Code(commands, "What to do next")),
                     _verdict(findings))]  # fmt: skip
    found.append(Section("leakage", TITLES["leakage"], tuple(leaks(findings)), f"{KINDS['leakage'].capitalize()}."))
    if counts["unreadable"]:
        rows = tuple((path, reason) for path, reason in findings.unreadable[:_ROWS])
        table = Table(TITLES["unreadable"], (Column("path"), Column("why")), rows)
        found.append(Section("unreadable", TITLES["unreadable"], (table,), f"{KINDS['unreadable'].capitalize()}."))
    for kind in ("label_conflict", "likely_mislabelled", "duplicate", "outlier", "odd_file"):
        if counts[kind]:
            lead = f"{counts[kind]:,} {KINDS[kind]}."
            found.append(Section(kind.replace("_", "-"), TITLES[kind], tuple(kind_blocks(findings, kind)), lead))
    return found


def _verdict(findings: Findings) -> str:
    """Return in a sentence or two what matters most."""
    counts, size = findings.counts(), len(findings.table)
    scored = sum(findings.table.sizes()[split] for split in ("val", "test"))
    if counts["leakage"]:
        made = "" if findings.own_splits else " These splits are the ones that a run would make."
        leaks = f"{counts['leakage']:,} of {scored:,} val and test images are in an earlier split too"
        return f"{leaks}, so scores on them flatter.{made}"
    wrong = counts["likely_mislabelled"]
    rest = f" {wrong:,} of {size:,} labels are worth a look." if wrong else ""
    return f"No image of val or test was found in an earlier split.{rest}"


def figures(counts: dict[str, int]) -> FactList:
    """Return the counts, shown large."""
    return FactList(tuple(
        Fact(TITLES[kind], f"{count:,}", "", "good" if not count else "bad" if kind in SEVERE else "warning")
        for kind, count in counts.items()
    ))  # fmt: skip


def balance(findings: Findings) -> Table:
    """Return how many images each class has in each split."""
    counts = findings.table.counts()
    numbers = {label: [counts[split][label] for split in SPLITS] for label in findings.table.labels}
    rows: list[tuple[Cell, ...]] = [(label, *each, sum(each)) for label, each in numbers.items()]
    title = "Images of each class" if findings.own_splits else "Images of each class, in the splits a run would make"
    return Table(title, tuple(map(Column, ("class", *SPLITS, "all"))), tuple(rows))


def leaks(findings: Findings) -> Iterator[Block]:
    """Yield the leaking images beside those that they repeat."""
    rows = findings.ranked("leakage")
    if not rows:
        yield Text("None found, among exact copies and near duplicates.", "good")
        return
    yield groups(findings, rows, "Each group shows the same; the splits are named below.")
    yield listing(findings, "leakage", rows)


def kind_blocks(findings: Findings, kind: str) -> Iterator[Block]:
    """Yield the clearest cases of a kind as pictures, and all of them as a table."""
    rows = findings.ranked(kind)
    if kind in ("label_conflict", "duplicate"):
        yield groups(findings, rows, "")
    else:
        yield Gallery("The clearest", tuple(_picture(findings, row) for row in rows[:_SHOWN]))
    yield listing(findings, kind, rows)


def groups(findings: Findings, rows: list[int], caption: str) -> Gallery:
    """Return whole groups of duplicates, those that have one of the rows first."""
    number = findings.duplicates.group
    wanted = list(dict.fromkeys(int(number[row]) for row in rows))
    members = sorted((row for row in range(len(number)) if number[row]), key=lambda row: int(number[row]))
    found = {key: list(group) for key, group in groupby(members, key=lambda row: int(number[row]))}
    shown = [row for key in wanted for row in found.get(key, [])[:4]][:_SHOWN]
    return Gallery(f"{len(wanted):,} groups", tuple(_picture(findings, row) for row in shown), caption)


def _picture(findings: Findings, row: int) -> ImageBlock:
    """Return an image with what is said of it."""
    table = findings.table
    frame = table.frame
    facts = {"label": ", ".join(table.names()[row]), "split": str(frame["split"].iloc[row])}
    suggestion = findings.suggestion(row)
    if suggestion is not None:
        facts |= {"rather": suggestion, "quality": f"{findings.quality(row) or 0:.2f}"}
    if findings.duplicates.group[row]:
        facts["group"] = str(findings.duplicates.group[row])
    if findings.odd[row]:
        facts["odd"] = findings.odd[row]
    name = str(frame["id"].iloc[row])
    return ImageBlock(name, thumbnail(table.store, str(frame["path"].iloc[row])), description=name, facts=facts)


def listing(findings: Findings, kind: str, rows: list[int]) -> Table:
    """Return the images of a kind as a table."""
    table = findings.table
    names, frame = table.names(), table.frame
    columns = (Column("image"), Column("label"), Column("split"), Column("group"), Column("rather"),
               Column("label quality", 3), Column("distance", 1), Column("note"))  # fmt: skip
    cells = tuple(
        (str(frame["id"].iloc[row]), ", ".join(names[row]), str(frame["split"].iloc[row]),
         int(findings.duplicates.group[row]) or None, findings.suggestion(row), findings.quality(row),
         float(findings.distances[row]), findings.odd[row] or None)
        for row in rows[:_ROWS]
    )  # fmt: skip
    more = f"The first {_ROWS} of {len(rows):,}; all are in audit.csv." if len(rows) > _ROWS else ""
    return Table(TITLES[kind], columns, cells, more)
