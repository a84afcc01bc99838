"""The command sweep in a process of its own, whose trials are those of light_trial.py.

usage: light_sweep.py OVERRIDE...
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__)
# what takes seconds and is tested by itself
QUICK = ("logger=none", "sweep.page=false")


def start(*overrides: str, folder: Path, **environment: str) -> "subprocess.Popen[str]":
    """Start a sweep in a folder."""
    ledger = {"LIGHT_LEDGER": str(folder / "ledger"), **environment}
    goes_on = any(word.startswith(("resume=", "join=")) for word in overrides)
    return subprocess.Popen(
        [sys.executable, str(HERE), *(() if goes_on else QUICK), *overrides],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **ledger},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def sweep(*overrides: str, folder: Path, **environment: str) -> tuple[int, str]:
    """Run a sweep to its end, and return the exit code and what it said."""
    process = start(*overrides, folder=folder, **environment)
    said = process.communicate(timeout=120)[0]
    return process.returncode, said


def stopped(process: "subprocess.Popen[str]", number: signal.Signals, when: Callable[[], bool]) -> tuple[int, str]:
    """Send a signal to a sweep when something has happened, and return how it ended."""
    end = time.monotonic() + 60
    while not when():
        assert process.poll() is None and time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    return process.returncode, said


def ledger(folder: Path) -> list[str]:
    """Return what the trials have noted."""
    file = folder / "ledger"
    return file.read_text().splitlines() if file.exists() else []


if __name__ == "__main__":
    from finetune.commands.sweep import run_sweep
    from finetune.config.compose import register
    from finetune.errors import FinetuneError

    register()
    try:
        program = (sys.executable, str(HERE.with_name("light_trial.py")))
        sys.exit(run_sweep(["--config-name", "sweep", *sys.argv[1:]], program))
    except FinetuneError as error:
        print(f"finetune: {error}")
        sys.exit(error.exit_code)
