"""Maps of a run's images, kept in its folder, so that its report can show them without the network.

It decides how they are stored; which images are explained, and how, is left to others.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.runs import Run, write_atomic

Maps = Mapping[str, npt.NDArray[np.float32]]
METHOD = "method"


def maps_file(run: Run) -> Path:
    """Return where the maps of a run are."""
    return run.path / "explanations" / "maps.npz"


def save_maps(run: Run, maps: Maps, method: str) -> None:
    """Keep maps (h, w) in [0, 1] by the id of their image, and the method that made them."""
    ids = list(maps)
    arrays = {f"map{number}": maps[name].astype(np.float16) for number, name in enumerate(ids)}
    buffer = io.BytesIO()
    facts = np.frombuffer(json.dumps({"ids": ids, METHOD: method}).encode(), np.uint8)
    np.savez_compressed(buffer, facts=facts, **arrays)  # type: ignore[arg-type]
    write_atomic(maps_file(run), buffer.getvalue())


def load_maps(run: Run) -> tuple[dict[str, npt.NDArray[np.float32]], str] | None:
    """Return the maps by id, and their method; None where none were made, or the file is damaged."""
    try:
        with np.load(maps_file(run), allow_pickle=False) as stored:
            facts = json.loads(stored["facts"].tobytes())
            maps = {name: stored[f"map{number}"].astype(np.float32) for number, name in enumerate(facts["ids"])}
            return maps, str(facts[METHOD])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
