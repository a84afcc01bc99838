"""A trial that is done in a tenth of a second: it reads its overrides, and writes the run folder that a sweep reads.

Its score is best at optimizer.lr=1e-3. What else happens is said by its seed: 13 raises, 14 kills itself, 15 never
ends, 16 has no number as a score, 17 raises at its first attempt alone. $LIGHT_LEDGER gets a line for each beginning
and each end.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

from finetune.runs.run import Run, write_json


def main(arguments: list[str]) -> None:
    """Behave like `finetune` with these overrides."""
    values = dict(argument.lstrip("+").split("=", 1) for argument in arguments if "=" in argument)
    run = Run.create(Path(values["hydra.run.dir"].strip("'")), config={}, command=sys.argv, seed=0)
    number, seed = int(run.path.name), int(values.get("seed", 0))
    note(f"begin {number}")
    signal.signal(signal.SIGINT, lambda *_: interrupted(run))
    time.sleep(float(os.environ.get("LIGHT_SECONDS", 0)))
    if seed == 13 or (seed == 17 and not run.path.with_name(f"{run.path.name}-attempt-1").exists()):
        run.update(status="failed")
        sys.exit("finetune: The run failed: ValueError: thirteen The traceback is in train.log.")
    if seed == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    while seed == 15:
        time.sleep(0.05)
    score = None if seed == 16 else -abs(math.log10(float(values.get("optimizer.lr", 1e-3))) + 3)
    pruned = os.environ.get("LIGHT_REPORTS") and behind(float(score or 0))
    write_json(run.metrics_file, {"val": {"accuracy": {"value": score}}, "model": {"parameters": 100 * number}})
    run.update(status="pruned" if pruned else "finished")
    note(f"end {number}")


def behind(score: float) -> bool:
    """Report three epochs to the study, and return whether the pruner ended the trial."""
    from finetune.search.study.reporter import Reporter

    reporter = Reporter(json.loads(os.environ["FINETUNE_TRIAL"]))
    return any(reporter.is_behind(epoch, score) for epoch in range(3))


def interrupted(run: Run) -> None:
    """End like a run that was asked to."""
    run.update(status="interrupted")
    sys.exit(130)


def note(line: str) -> None:
    """Add a line to the ledger."""
    if "LIGHT_LEDGER" in os.environ:
        with open(os.environ["LIGHT_LEDGER"], "a") as file:
            file.write(f"{line}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
