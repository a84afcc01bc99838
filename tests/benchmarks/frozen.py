"""A frozen run of 20 epochs beside one pass over its images, the same run uncached, and a second run.

Each run is a process of its own; what is timed is training with its validation and the final scores, without imports.
The pass is a bare loop over the same images, one after the other through PIL and the backbone, in a process of its own.

usage: frozen.py FOLDER [--repeats N] [--epochs N] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

RUNS = {
    "cached": ["seed=0"],
    "second": ["seed=1", "strategy.lr=1e-3"],
    "search": ["seed=0", "head=logistic"],
    "uncached": ["seed=0", "strategy.features=none"],
}


def one_pass(folder: Path) -> float:
    """Return the seconds of a bare loop over all images of a folder."""
    from torchvision.datasets import ImageFolder

    from finetune.data.transforms import eval_transform
    from finetune.models.network import build_network
    from finetune.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    network = build_network("tf_efficientnet_lite0", num_classes=2, weights="bundled").eval()
    network.to(memory_format=torch.channels_last)
    splits = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    data = torch.utils.data.ConcatDataset([ImageFolder(str(path), eval_transform(network.spec)) for path in splits])
    started = time.perf_counter()
    with torch.inference_mode():
        for images, _ in torch.utils.data.DataLoader(data, 32):
            network.backbone(images.contiguous(memory_format=torch.channels_last))
    return time.perf_counter() - started


def one_run(arguments: list[str]) -> dict[str, float]:
    """Train as the command line says; return the seconds of its parts, and of what lies before the first step."""
    sys.argv = ["finetune", *arguments]
    from finetune import cli
    from finetune.commands import train
    from finetune.models.heads import fit as solve
    from finetune.training import fit
    from finetune.training import solved_head as solved

    seconds: dict[str, float] = {}

    def timed(module: object, name: str) -> None:
        call = getattr(module, name)

        def clocked(*args: object, **options: object) -> object:
            begun = time.perf_counter()
            result = call(*args, **options)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begun
            return result

        setattr(module, name, clocked)

    for name in ("fit", "predict_final"):
        timed(train, name)
    timed(solved, solve.fit_head.__name__)
    step = fit.Classifier.training_step

    def first_step(self: fit.Classifier, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        seconds.setdefault("first_step", time.perf_counter() - started)
        return step(self, batch, batch_idx)

    fit.Classifier.training_step = first_step  # type: ignore[method-assign]
    started = time.perf_counter()
    try:
        cli.main()
    except SystemExit as stop:
        if stop.code:
            raise
    return {"whole": time.perf_counter() - started, **seconds}


def child(*arguments: str) -> dict[str, float]:
    """Return what this script measures in a process of its own."""
    found = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    if found.returncode:
        raise SystemExit(found.stderr[-3000:])
    return dict(json.loads(found.stdout.splitlines()[-1]))


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the measurements of one round, which begins with an empty cache."""
    found = {"pass": child(str(options.folder), "--only", "pass")}
    with tempfile.TemporaryDirectory() as work:
        for name, extra in RUNS.items():
            arguments = [
                "data=folder", f"data.root={options.folder}", "strategy=frozen", f"strategy.epochs={options.epochs}",
                f"cache.dir={work}/cache", f"runs={work}/runs", "logger=none", *extra,
            ]  # fmt: skip
            found[name] = child(str(options.folder), "--only", "run", "--arguments", json.dumps(arguments))
    return found


def main() -> None:
    """Measure some rounds, print the medians of their ratios, and write the numbers if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--arguments", default="[]", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder = options.folder.absolute()
    if options.only:
        passed = options.only == "pass"
        print(json.dumps({"seconds": one_pass(options.folder)} if passed else one_run(json.loads(options.arguments))))
        return
    rounds = [measure(options) for _ in range(options.repeats)]

    def work(found: dict[str, dict[str, float]], name: str) -> float:
        return found[name]["fit"] + found[name]["predict_final"]

    ratios = {
        "cached run / pass": [work(found, "cached") / found["pass"]["seconds"] for found in rounds],
        "uncached run / cached run": [work(found, "uncached") / work(found, "cached") for found in rounds],
        "second run / pass": [work(found, "second") / found["pass"]["seconds"] for found in rounds],
        "search of 30 strengths / pass": [found["search"]["fit_head"] / found["pass"]["seconds"] for found in rounds],
    }
    ratios["second run, first step (s)"] = [found["second"]["first_step"] for found in rounds]
    for name, values in ratios.items():
        print(f"{name:32}{statistics.median(values):8.2f}   {[round(value, 2) for value in sorted(values)]}")
    if options.json is not None:
        options.json.write_text(json.dumps(rounds, indent=2) + "\n")


if __name__ == "__main__":
    main()
