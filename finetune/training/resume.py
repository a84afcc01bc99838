"""Resuming: where in its phases an interrupted run goes on, from its last checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from finetune.models.network import Network
from finetune.training.callbacks.checkpoints import Checkpoints, network_state, read_checkpoint


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


def find_resume_point(last: Path, checkpoints: Checkpoints, network: Network) -> ResumePoint:
    """Return where an interrupted run goes on, with its weights loaded into the network.

    A run without a checkpoint starts anew. The callback that keeps the best epoch is brought up to date too.
    """
    if not last.exists():
        return ResumePoint()
    checkpoint = read_checkpoint(last)
    place = checkpoint["finetune"]
    network.load_state_dict(network_state(checkpoint, averaged=place["finished"]))
    checkpoints.load_state_dict(checkpoint["callbacks"][checkpoints.state_key])
    if place["finished"]:
        return ResumePoint(place["phase"] + 1, place["steps"], place["epochs"], reached=place["steps"])
    done = place["epochs"] - place["epochs_before"]
    return ResumePoint(place["phase"], place["steps_before"], place["epochs_before"], done, place["steps"], last)
