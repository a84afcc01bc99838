"""Starts a worker once per rank, as a launcher would, on this host's CPU."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parent


def run_ranks(worker: str, world_size: int, folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a worker of this folder on each rank, and return the results.json that the first rank wrote."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir()
    processes = []
    for rank in range(world_size):
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
        place |= {"LOCAL_RANK": str(rank), "RANK": str(rank), "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(SUPPORT / worker), str(folder), *arguments]
        environment = os.environ | (place if world_size > 1 else {"OMP_NUM_THREADS": "1"})
        log = (folder / f"log_{rank}").open("w")
        processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    codes = [process.wait(timeout=400) for process in processes]
    logs = "\n".join((folder / f"log_{rank}").read_text()[-3000:] for rank in range(world_size))
    assert codes == [0] * world_size, logs
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found
