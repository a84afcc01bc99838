"""Resuming: where in its phases an interrupted run goes on, from the last of its checkpoints that is whole."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.config.settings.phases import Strategy
from finetune.config.settings.training_groups import OptimizerSettings
from finetune.errors import RunError
from finetune.models.network import Network
from finetune.runs.run import Run
from finetune.training.callbacks.checkpoints import Checkpoints, network_state, read_checkpoint
from finetune.training.checkpoint_checks import check_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePoint:
    """Where a run stands.

    Attributes:
        phase: The phase to train next.
        steps: Optimizer steps of the phases before it.
        epochs: Epochs of the phases before it.
        done: Epochs of the phase itself that are over.
        reached: The last step that the run keeps.
        checkpoint: Where the phase goes on; None for its start.
    """

    phase: int = 0
    steps: int = 0
    epochs: int = 0
    done: int = 0
    reached: int = 0
    checkpoint: Path | None = None


def find_resume_point(
    checkpoints: Checkpoints, network: Network, strategy: Strategy, optimizer: OptimizerSettings
) -> ResumePoint:
    """Return where an interrupted run goes on, with its weights loaded into the network.

    A run without a checkpoint starts anew. The callback that keeps the best epoch is brought up to date too.

    Args:
        checkpoints: Of the run.
        network: Before the first phase.
        strategy: The phases.
        optimizer: Of each phase.

    Raises:
        RunError: The run has checkpoints, and none of them can be used; nothing has been changed then.
    """
    found = newest_checkpoint(
        checkpoints.run, lambda stored: check_checkpoint(stored, checkpoints.state_key, network, strategy, optimizer)
    )
    if found is None:
        return ResumePoint()
    path, checkpoint = found
    place = checkpoint["finetune"]
    checkpoints.last_is_whole = path == checkpoints.run.last_checkpoint
    checkpoints.load_state_dict(checkpoint["callbacks"][checkpoints.state_key])
    network.load_state_dict(network_state(checkpoint, averaged=place["finished"]))
    if place["finished"]:
        return ResumePoint(place["phase"] + 1, place["steps"], place["epochs"], reached=place["steps"])
    done = place["epochs"] - place["epochs_before"]
    return ResumePoint(place["phase"], place["steps_before"], place["epochs_before"], done, place["steps"], path)


def newest_checkpoint(run: Run, check: Callable[[dict[str, Any]], None]) -> tuple[Path, dict[str, Any]] | None:
    """Return the last checkpoint of a run, or the one before where the last is damaged, which is logged in a line.

    Args:
        run: The run.
        check: Raises a RunError, which says why, where a checkpoint is none of the run.

    Returns:
        Its path and content; None where the run has no checkpoint.

    Raises:
        RunError: None of those that are there can be used.
    """
    faults: list[tuple[Path, str]] = []
    for path in (run.last_checkpoint, run.previous_checkpoint):
        if not path.exists():
            continue
        try:
            checkpoint = read_checkpoint(path)
            check(checkpoint)
        except RunError as error:
            faults.append((path, str(error)))
            continue
        if faults:
            log.warning("%s cannot be used: %s The run goes on from %s.", *faults[0], path.name)
        return path, checkpoint
    if faults:
        raise RunError(_unusable(faults))
    return None


def _unusable(faults: Sequence[tuple[Path, str]]) -> str:
    """Return what is wrong with checkpoints none of which can be used, and what to do."""
    (path, why), *others = faults
    also = f" Nor can {others[0][0].name} before it: {others[0][1]}" if others else ""
    which = "both" if others else "it"
    return (
        f"{path} cannot be used: {why}{also} Put a whole copy in its place, or remove {which}, and the run begins anew "
        "when it is resumed."
    )
