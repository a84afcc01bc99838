"""Provenance of a run: the process, the versions of packages and the commit that made it."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "finetune-images",
    "torch",
    "torchvision",
    "timm",
    "pytorch-lightning",
    "torchmetrics",
    "hydra-core",
    "wandb",
)


def process() -> dict[str, Any]:
    """Return what identifies this process, also after its number has been given to another."""
    return {"pid": os.getpid(), "process_started": process_start(os.getpid()), "host": os.uname().nodename}


def process_start(pid: int) -> str | None:
    """Return what tells a process from a later one of the same number, or None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return found.stdout.strip() or None
    return None if fields[0] in "ZX" else fields[19]


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Return the commit of the current folder and whether it has changes, or None where there is no checkout."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": bool(changes.strip())}
