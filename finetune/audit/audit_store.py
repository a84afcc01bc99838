"""Stored audits: findings kept beside the cache, so that a run on the very same images can say them."""

from pathlib import Path
from typing import Any

from finetune.runs.run import write_json
from finetune.runs.stored_files import read_json


def audit_file(cache: Path, fingerprint: str) -> Path:
    """Return where the audit of a set of images is kept; its splits are part of the fingerprint."""
    return cache / "audits" / f"{fingerprint}.json"


def save_audit(cache: Path, fingerprint: str, summary: dict[str, Any]) -> None:
    """Keep the summary of an audit."""
    write_json(audit_file(cache, fingerprint), summary)


def load_audit(cache: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return the summary of the last audit of the very same images and splits; None where there was none."""
    return read_json(audit_file(cache, fingerprint))


def audit_line(summary: dict[str, Any]) -> str:
    """Return an audit's summary in a line."""
    counts = summary["counts"]
    leaks = counts["leakage"]
    head = f"{leaks:,} val and test images leak from earlier splits" if leaks else "no leakage across splits"
    rest = [f"{counts[kind]:,} {kind.replace('_', ' ')}" for kind in counts if kind != "leakage" and counts[kind]]
    return f"Audit of {str(summary['created'])[:10]}: {', '.join([head, *rest])} ({summary['page']})"
