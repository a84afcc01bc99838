"""Attribution maps in the folder of a run or an evaluation, so that its page shows them without the network."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.runs.run import write_atomic

Maps = Mapping[str, npt.NDArray[np.float32]]
METHOD = "method"


def maps_file(folder: Path) -> Path:
    """Return where the maps of a run or of an evaluation are."""
    return folder / "explanations" / "maps.npz"


def save_maps(folder: Path, maps: Maps, method: str) -> None:
    """Keep maps (h, w) in [0, 1] by the id of their image, and the method that made them."""
    ids = list(maps)
    arrays = {f"map{number}": maps[name].astype(np.float16) for number, name in enumerate(ids)}
    buffer = io.BytesIO()
    facts = np.frombuffer(json.dumps({"ids": ids, METHOD: method}).encode(), np.uint8)
    np.savez_compressed(buffer, facts=facts, **arrays)  # type: ignore[arg-type]
    write_atomic(maps_file(folder), buffer.getvalue())


def load_maps(folder: Path) -> tuple[dict[str, npt.NDArray[np.float32]], str] | None:
    """Return the maps by id, and their method; None where none were made, or the file is damaged."""
    try:
        with np.load(maps_file(folder), allow_pickle=False) as stored:
            facts = json.loads(stored["facts"].tobytes())
            maps = {name: stored[f"map{number}"].astype(np.float32) for number, name in enumerate(facts["ids"])}
            return maps, str(facts[METHOD])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
