"""Measured throughput on the screen, and what to change."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from finetune.runtime.format import format_size
from finetune.training.throughput.advice import ThroughputReport, advice


def show_throughput(report: ThroughputReport, output: Path, console: Console) -> None:
    """Print the numbers and what to change."""
    what = "training" if report.trains else "features of a backbone at rest"
    table = Table(
        title=f"phase {report.phase}: {what}, {report.device}, {report.precision}, batches of {report.batch_size}"
    )
    for column in ("", "images/s", "of the limit"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {
        f"input alone ({report.workers} workers)": report.pipeline,
        "computation alone": report.compute,
        "limit of both": report.limit,
        "bare loop": report.bare,
        "real run": report.run,
    }
    for name, rate in rows.items():
        table.add_row(name, f"{rate:,.1f}", f"{rate / report.limit:.2f}")
    console.print(table)
    said = "tried" if report.device == "cuda" else "estimated"
    lines = [
        f"real run / bare loop: {report.run_to_bare:.3f}",
        f"peak memory: {format_size(report.peak_memory)}",
        f"largest batch that fits ({said}): {report.largest_batch:,} images",
        *(f"- {line}" for line in advice(report)),
        f"Written to {output}",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
