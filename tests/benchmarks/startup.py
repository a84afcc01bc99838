"""How long `finetune --help` and `finetune --cfg job` take, as ratios against a bare Hydra application.

    python tests/benchmarks/startup.py

The bare application has one configuration file of ten keys and imports nothing but Hydra. The commands are run in
turn, so that all of them see the same machine; the ratio is that of the medians, with the smallest and the largest
of the rounds' own ratios.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROUNDS = 15
APP = """
import hydra

@hydra.main(version_base=None, config_path=".", config_name="config")
def main(cfg):
    pass

main()
"""
COMMANDS = ("--help", "--cfg job")


def seconds(command: list[str], folder: Path) -> float:
    """Return how long a command takes.

    Raises:
        CalledProcessError: It failed.
    """
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Time both applications in turn and print the ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP)
        (folder / "config.yaml").write_text("".join(f"key_{number}: {number}\n" for number in range(10)))
        for arguments in COMMANDS:
            bare = [sys.executable, "app.py", *arguments.split()]
            ours = [sys.executable, "-m", "finetune", *arguments.split()]
            rounds = [(seconds(bare, folder), seconds(ours, folder)) for _ in range(ROUNDS + 1)][1:]
            ratios = sorted(one / other for other, one in rounds)
            ratio = median(one for _, one in rounds) / median(other for other, _ in rounds)
            print(
                f"finetune {arguments:10} {ratio:.2f} x a bare Hydra application "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f}; {median(one for _, one in rounds):.2f} s)"
            )


if __name__ == "__main__":
    main()
