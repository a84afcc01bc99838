"""Reference of drift: features of validation images, kept with the run that computed them anyway."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.errors import RunError
from finetune.runs.run import Run, replacing

_VERSION = 1
SPLIT = "val"
LIMIT = 2_000  # images, since more change no verdict and the time of a comparison grows with their square
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Reference:
    """Features of images that a run was not trained on.

    Attributes:
        rows: (N,) int64 row numbers in the run's table.
        features: (N, F) float16.
    """

    rows: npt.NDArray[np.int64]
    features: npt.NDArray[np.float16]


def sample_rows(rows: npt.NDArray[np.int64], limit: int = LIMIT) -> npt.NDArray[np.int64]:
    """Return the rows whose features are looked at: all, or a random choice that is always the same."""
    if len(rows) <= limit:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))


def to_half_precision(features: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float16]:
    """Return features as they are kept; what is too large for that is the largest there is."""
    return np.asarray(np.clip(features, -_LARGEST, _LARGEST), np.float16)


def save_reference(run: Run, rows: npt.NDArray[np.int64], features: npt.NDArray[np.floating[Any]]) -> None:
    """Keep features (N, F) of rows (N,) of the run's table."""
    from safetensors.numpy import save_file

    facts = {"version": json.dumps(_VERSION), "split": SPLIT}
    with replacing(run.reference_file) as temporary:
        save_file({"rows": rows.astype(np.int64), "features": to_half_precision(features)}, temporary, metadata=facts)


def load_reference(run: Run) -> Reference | None:
    """Return what was kept of a run, or None where nothing was.

    Raises:
        RunError: The file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not run.reference_file.is_file():
        return None
    try:
        found = load_file(run.reference_file)
        return Reference(found["rows"], found["features"])
    except (OSError, KeyError, SafetensorError) as error:
        raise RunError(f"{run.reference_file} is damaged ({error}). Delete it, and drift is not measured.") from error
