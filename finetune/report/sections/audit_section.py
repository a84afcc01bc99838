"""Audit, in the report of a run: what was found in the very same images."""

from finetune.report.html.blocks import Column, Section, Table, Text
from finetune.report.pages.audit_page import TITLES
from finetune.report.run_data import RunData


def audit_section(run_data: RunData) -> Section | None:
    """Return what was found; None where nobody has looked."""
    found = run_data.record.get("audit")
    if not found:
        return None
    counts = found["counts"]
    leaks = counts.get("leakage", 0)
    lead = (
        f"{leaks:,} images of val and test are in an earlier split too: the scores flatter the model."
        if leaks
        else "No image of val or test was found in an earlier split."
    )
    rows = tuple((TITLES.get(kind, kind), count) for kind, count in counts.items())
    blocks = (
        Table("Findings", (Column("finding"), Column("images")), rows),
        Text(f"Audit of {found['created'][:10]}, of {found['images']:,} images: {found['page']}"),
    )
    return Section("audit", "Data audit", blocks, lead)
