"""How threads wait, set before torch is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.runtime.threads import set_openmp_wait_policy


@pytest.mark.parametrize("said", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "1000"}, {"KMP_BLOCKTIME": "1"}])
def test_what_the_environment_says_stays(said: dict[str, str]) -> None:
    environment = dict(said)
    set_openmp_wait_policy(environment)
    assert environment == said


def test_threads_of_a_command_wait_asleep(tmp_path: Path) -> None:
    silent = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))}
    found = subprocess.run(
        [sys.executable, "-m", "finetune", "features", "action=show", f"cache.dir={tmp_path}"],
        cwd=tmp_path, env={**silent, "OMP_DISPLAY_ENV": "true"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in found.stderr
