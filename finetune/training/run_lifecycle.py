"""Life of a run, in its folder and in the tracker: running, then finished, failed, interrupted or pruned."""

import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from finetune.config.settings.roots import PretrainRootSettings, TrainSettings
from finetune.errors import ConfigError
from finetune.runs.run import FAILED, FINISHED, INTERRUPTED, PRUNED, Run
from finetune.runs.wandb import Tracker
from finetune.runtime.signals import ENDING, exit_on_signals
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

    It is finished when all is done, the tracker's part included; what a kill has left undone is done when the run goes
    on. A SIGTERM, and what else ends a process, ends the run like an interruption with exit code 143, so that the logs
    are complete; a pruned trial of a sweep ends here, without an evaluation, and that is no failure.
    """
    if is_first_rank():
        _begin(run, settings.document, resume=resume)
    started = time.monotonic()
    tracker = None
    status, code = FAILED, 1
    with exit_on_signals(ending_signals()):
        try:
            if is_first_rank():
                tracker = build_tracker(run, settings)
            yield tracker
            status, code = FINISHED, 0
        except Pruned as end:
            status, code = PRUNED, 0
            note_pruned(run, end, tracker)
        except (KeyboardInterrupt, SystemExit) as stop:
            status, code = INTERRUPTED, exit_code(stop)
            raise SystemExit(code) from None
        finally:
            if is_first_rank():
                _end(run, tracker, status, code, started)
                if status == INTERRUPTED:
                    again = resume_command(run, settings.verb)
                    print(f"finetune: Interrupted.{f' Continue with: {again}' if again else ''}", file=sys.stderr)


def _end(run: Run, tracker: Tracker | None, status: str, code: int, started: float) -> None:
    """Close the tracker, and then record how the run has ended; a run that is over needs no second checkpoint."""
    try:
        if tracker is not None:
            tracker.finish(code)
    except (KeyboardInterrupt, SystemExit):
        status = INTERRUPTED
        raise
    finally:
        if status in (FINISHED, PRUNED):
            run.previous_checkpoint.unlink(missing_ok=True)
        run.update(status=status, seconds=time.monotonic() - started + float(run.record.get("seconds") or 0))


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end a run; under Slurm, SIGUSR1 is how Lightning is told to requeue its job."""
    return tuple(number for number in ENDING if not (number == signal.SIGUSR1 and SLURMEnvironment.detect()))


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
