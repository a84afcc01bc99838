"""What the cache holds, on the screen."""

from datetime import datetime

from rich.console import Console
from rich.table import Table

from finetune.data.cache.store import Cache, SpaceInfo
from finetune.runtime.format import format_size


def show_cache(cache: Cache, console: Console) -> None:
    """Print what is kept, the last used first."""
    infos = cache.infos()[::-1]
    total = format_size(sum(info.size for info in infos))
    table = Table(title=f"{cache.folder}: {total} of {format_size(cache.max_size)}")
    for column in ("id", "kind", "what", "entries", "size", "last used"):
        table.add_column(column, justify="right" if column in ("entries", "size") else "left")
    for info in infos:
        used = datetime.fromtimestamp(info.used).strftime("%Y-%m-%d %H:%M")
        table.add_row(info.identity[:8], info.kind, what_is(info), f"{info.entries:,}", format_size(info.size), used)
    console.print(table)


def what_is(info: SpaceInfo) -> str:
    """Return in a few words what made the entries of a space."""
    described = info.description
    size = described.get("input", {})
    augmented = "augmented" if described.get("augment") else "as in evaluation"
    parts = [described.get("model"), size and f"{size['height']} x {size['width']}", augmented, described.get("dtype")]
    return ", ".join(str(part) for part in parts if part)
