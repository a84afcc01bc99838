"""Life of a run, in its folder and in the tracker: running, then finished, failed, interrupted or pruned."""

import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_only

from finetune.config.settings.roots import PretrainRootSettings, TrainSettings
from finetune.errors import ConfigError
from finetune.runs.run import PRUNED, Run
from finetune.runs.wandb import Tracker
from finetune.training.build import build_tracker

TRAIN, PRETRAIN, CROSSVAL = "train", "pretrain", "crossval"
_RESUMABLE = (TRAIN, PRETRAIN, CROSSVAL)  # the commands whose runs can be continued


class Pruned(Exception):
    """The run is a trial that is behind the others.

    Attributes:
        epoch: Of all phases together.
        metric: What was compared.
        value: Of the metric in that epoch.
    """

    def __init__(self, epoch: int, metric: str, value: float) -> None:
        """Say where the run stood."""
        super().__init__(f"Pruned in epoch {epoch}: with {metric} {value:.4f} it is behind the other trials.")
        self.epoch = epoch
        self.metric = metric
        self.value = value

    @property
    def record(self) -> dict[str, Any]:
        """What is kept in the run's folder."""
        return {"epoch": self.epoch, "metric": self.metric, "value": self.value}


def is_first_rank() -> bool:
    """Return whether this process is the one that writes."""
    return int(rank_zero_only.rank) == 0  # type: ignore[attr-defined]


def _begin(run: Run, document: Mapping[str, Any], *, resume: bool) -> None:
    """Write the folder of a new run, or mark an interrupted one as running again."""
    if resume:
        run.continue_with(sys.argv)
    else:
        Run.create(run.path, config=dict(document), command=sys.argv, seed=document["seed"])


@contextmanager
def record_outcome(
    run: Run, settings: TrainSettings | PretrainRootSettings, *, resume: bool
) -> Iterator[Tracker | None]:
    """Record how the run ends, in its folder and in the tracker: finished, failed, interrupted or pruned.

    A SIGTERM ends the run like an interruption with exit code 143, so that the logs are complete; a pruned trial of a
    sweep ends here, without an evaluation, and that is no failure.
    """

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    if is_first_rank():
        _begin(run, settings.document, resume=resume)
    started = time.monotonic()
    previous = signal.signal(signal.SIGTERM, terminate)
    tracker = None
    status, code = "failed", 1
    try:
        if is_first_rank():
            tracker = build_tracker(run, settings)
        yield tracker
        status, code = "finished", 0
    except Pruned as end:
        status, code = PRUNED, 0
        note_pruned(run, end, tracker)
    except (KeyboardInterrupt, SystemExit) as stop:
        status, code = "interrupted", exit_code(stop)
        raise SystemExit(code) from None
    finally:
        if is_first_rank():
            run.update(status=status, seconds=time.monotonic() - started + float(run.record.get("seconds") or 0))
            if tracker is not None:
                tracker.finish(code)
            if status == "interrupted":
                again = resume_command(run, settings.verb)
                print(f"finetune: Interrupted.{f' Continue with: {again}' if again else ''}", file=sys.stderr)
        signal.signal(signal.SIGTERM, previous)


def resume_command(run: Run, command: str) -> str:
    """Return the command that continues a run; empty where that takes too little time for one."""
    if command not in _RESUMABLE:
        return ""
    return f"finetune {'' if command == TRAIN else f'{command} '}resume={shlex.quote(str(run.path))}"


def check_command(run: Run, command: str) -> None:
    """Check that a run is continued by the command that began it.

    Raises:
        ConfigError: It is not.
    """
    own = str(run.config.get("verb", TRAIN))
    if own != command:
        hint = resume_command(run, own)
        raise ConfigError(f"{run.path} was begun by finetune {own}. {f'Type: {hint}' if hint else 'Begin it anew.'}")


def note_pruned(run: Run, end: Pruned, tracker: Tracker | None) -> None:
    """Note in the folder and in the tracker where a trial was when it was ended; the first rank writes."""
    if is_first_rank():
        print(end)
        run.update(pruned=end.record)
        if tracker is not None:
            tracker.log_summary({"pruned": True})


def exit_code(stop: BaseException) -> int:
    """Return the exit code of an interrupted run; Lightning turns Ctrl-C into SystemExit(1)."""
    if isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt):
        return 130
    return stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 1
