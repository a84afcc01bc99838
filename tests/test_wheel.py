"""The wheel: conf/ travels in it, and the command works from any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_wheel_holds_the_configurations_and_works_from_an_empty_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    code = "import finetune.cli, sys; assert finetune.cli.__file__.startswith(sys.argv.pop(1)); finetune.cli.main()"
    command = [sys.executable, "-c", code, str(site), "--cfg", "job", "--resolve", "strategy=gradual"]
    found = subprocess.run(
        command, cwd=empty, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    assert "name: gradual" in found.stdout
    shipped = {
        path.relative_to(site / "finetune" / "conf").as_posix() for path in (site / "finetune" / "conf").rglob("*.yaml")
    }
    assert shipped == {path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
