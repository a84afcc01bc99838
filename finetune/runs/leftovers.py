"""What a kill leaves of files that were being written."""

from pathlib import Path

# begins the name of a file that is being written
PARTIAL = ".partial-"
_STARTS = (PARTIAL, ".tmp")  # the latter safetensors' own
_OTHERS = "wandb"  # whose client looks after its files itself


def remove_leftovers(folder: Path) -> None:
    """Remove what was being written below a run's folder when the process that did so was killed."""
    for start in _STARTS:
        for found in folder.rglob(f"{start}*"):
            if found.is_file() and _OTHERS not in found.relative_to(folder).parts:
                found.unlink(missing_ok=True)
