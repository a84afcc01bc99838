"""Training steps with threads that wait asleep beside threads that spin, on free cores and while a core is in use.

Each measurement is a process of its own, since OpenMP reads its settings once; they take turns.

usage: waiting.py [--repeats N] [--steps N]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

WAYS: dict[str, dict[str, str]] = {"spinning": {}, "asleep": {"OMP_WAIT_POLICY": "PASSIVE"}}


def images_per_second(steps: int) -> float:
    """Return how fast the default network trains on one batch."""
    import torch

    from finetune.models.network import build_network
    from finetune.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    network = build_network("tf_efficientnet_lite0", num_classes=10, weights="none").train()
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    images = torch.randn(32, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    targets = torch.arange(32) % 10

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), targets).backward()
        optimizer.step()

    step()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * len(images) / (time.perf_counter() - started)


def child(settings: dict[str, str], steps: int) -> float:
    """Return what a process of its own measures under some settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, __file__, "--child", "--steps", str(steps)]
    return float(subprocess.run(command, env=clean | settings, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure both ways in turn, with and without a neighbour, and print the medians of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(images_per_second(options.steps))
        return
    for place in ("free cores", "one core in use"):
        neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if place != "free cores" else None
        try:
            rounds = [{way: child(WAYS[way], options.steps) for way in WAYS} for _ in range(options.repeats)]
        finally:
            if neighbour is not None:
                neighbour.kill()
        ratios = sorted(found["asleep"] / found["spinning"] for found in rounds)
        print(
            f"{place:18} asleep / spinning {statistics.median(ratios):6.2f}   {[round(value, 2) for value in ratios]}"
        )


if __name__ == "__main__":
    main()
