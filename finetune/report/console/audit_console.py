"""What an audit has found on the screen, and what to type next."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from finetune.audit.findings import KINDS, Findings
from finetune.data.image_stores import FileStore
from finetune.report.pages.audit_page import TITLES


def findings_table(counts: dict[str, int]) -> Table:
    """Return how many images are of each kind, and what that means."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("images", justify="right")
    table.add_column("finding")
    table.add_column("", overflow="fold", style="dim")
    for kind, count in counts.items():
        table.add_row(f"{count:,}", TITLES[kind], KINDS[kind], style="bold" if count else "dim")
    return table


def next_commands(findings: Findings, folder: Path, typed: Sequence[str]) -> str:
    """Return what to type next: the table is taken back after editing, and duplicates can be kept together."""
    table = findings.table
    if not isinstance(table.store, FileStore):
        return "These images are not in files of their own: audit.csv is to be read, not to be trained on."
    typed = [word for word in typed if not word.startswith(("data", "audit."))]
    several = ["data.label_separator='|'"] if table.task == "multilabel" else []
    command = ["finetune", "data=csv", f"data.path={folder / 'audit.csv'}", *several, *typed]
    lines = ["# after editing audit.csv: correct labels, delete rows", shlex.join(command)]
    if findings.duplicates.group.any() and not findings.own_splits:
        together = ["data.group_columns=[duplicate_group]", "data.splits.group=duplicate_group"]
        lines += ["# splits that no duplicates cross", shlex.join([*command, *together])]
    return "\n".join(lines)
