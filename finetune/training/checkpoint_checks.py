"""Checks of a checkpoint before a run goes on from it: its place in the run, its weights and its optimizer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from finetune.config.settings.phases import Phase, Strategy
from finetune.config.settings.training_groups import OptimizerSettings
from finetune.errors import RunError
from finetune.models.network import Network
from finetune.training.callbacks.checkpoints import network_state
from finetune.training.freezing import apply_phase
from finetune.training.optimizers import build_optimizer, parameter_groups

_COUNTS = ("phase", "steps_before", "epochs_before", "steps", "epochs")
# what an optimizer keeps of each weight in the weight's own shape
_MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")


def check_checkpoint(
    stored: Mapping[str, Any], callback: str, network: Network, strategy: Strategy, optimizer: OptimizerSettings
) -> None:
    """Check that a run can go on from a checkpoint.

    Args:
        stored: What was read.
        callback: The name by which the state of the callback that keeps checkpoints is stored.
        network: The run's; which of its layers move is changed.
        strategy: The run's.
        optimizer: The run's.

    Raises:
        RunError: It cannot; the message says what is wrong, as a sentence.
    """
    check_place(stored.get("finetune"), strategy)
    check_best(stored.get("callbacks"), callback)
    for averaged in (True, False):
        check_weights(stored, network, averaged=averaged)
    place = stored["finetune"]
    if not place["finished"]:
        check_progress(stored, place)
        check_optimizer(stored.get("optimizer_states"), network, strategy.phases[place["phase"]], optimizer)


def check_place(place: Any, strategy: Strategy) -> None:
    """Check that a place lies in a strategy.

    Raises:
        RunError: It does not.
    """
    if (
        not isinstance(place, dict)
        or not all(type(place.get(name)) is int for name in _COUNTS)
        or type(place.get("finished")) is not bool
    ):
        raise RunError("it does not say where the run stood.")
    phases, number = strategy.phases, place["phase"]
    if not 0 <= number < len(phases):
        raise RunError(f"it is of phase {number}, and the strategy has the phases 0 to {len(phases) - 1}.")
    before, done = place["epochs_before"], place["epochs"] - place["epochs_before"]
    longest = sum(phase.epochs for phase in phases[:number])
    if not (number <= before <= longest and 1 <= done <= phases[number].epochs):
        raise RunError(f"it is of epoch {place['epochs']}, which is none of phase {number} ({phases[number].name}).")
    if not 0 <= place["steps_before"] <= place["steps"]:
        raise RunError(f"it is of step {place['steps']}, which is none of phase {number} ({phases[number].name}).")


def check_best(callbacks: Any, name: str) -> None:
    """Check that the states of callbacks say which epoch was the best.

    Raises:
        RunError: They do not.
    """
    state = callbacks.get(name) if isinstance(callbacks, dict) else None
    best = state.get("best") if isinstance(state, dict) else None
    if (
        not isinstance(state, dict)
        or not isinstance(best, Sequence)
        or [type(value) for value in best] != [float, float]
        or type(state.get("best_epoch")) is not int
    ):
        raise RunError("it does not say which epoch was the best.")


def check_weights(stored: Mapping[str, Any], network: Network, *, averaged: bool) -> None:
    """Check that a checkpoint holds the weights of a network, by name and shape.

    Raises:
        RunError: It does not.
    """
    own = network.state_dict()
    if not isinstance(stored.get("current_model_state", {}), dict):
        raise RunError("it holds no weights.")
    found = network_state(dict(stored), averaged=averaged)
    for name in sorted(own.keys() ^ found.keys()):
        raise RunError(f"it {'lacks' if name in own else 'holds'} {name}, which the network {_has(name in own)}.")
    for name, value in found.items():
        if not isinstance(value, Tensor) or value.shape != own[name].shape:
            shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise RunError(f"its {name} is {shape}, and the network's is {list(own[name].shape)}.")


def _has(known: bool) -> str:
    return "has" if known else "does not have"


def check_progress(stored: Mapping[str, Any], place: Mapping[str, Any]) -> None:
    """Check that the trainer's own counts are those of the place.

    Raises:
        RunError: They are not.
    """
    try:
        done = stored["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        whole = "pytorch-lightning_version" in stored and len(stored["lr_schedulers"]) == 1
    except (KeyError, TypeError):
        raise RunError("it does not hold the state of the trainer.") from None
    expected = (place["epochs"] - place["epochs_before"], place["steps"] - place["steps_before"])
    whole = whole and ("current_model_state" in stored) == ("averaging_state" in stored)
    if not whole or (done, stored.get("global_step")) != expected:
        raise RunError("the state of the trainer in it is of another place.")


def check_optimizer(states: Any, network: Network, phase: Phase, settings: OptimizerSettings) -> None:
    """Check that there is the state of a phase's optimizer over the parameters that move.

    Raises:
        RunError: There is none, or that of another optimizer or of other parameters.
    """
    state = states[0] if isinstance(states, list) and len(states) == 1 else None
    if not isinstance(state, dict) or not isinstance(state.get("param_groups"), list):
        raise RunError("it holds no state of the optimizer.")
    moments, saved = state.get("state"), state["param_groups"]
    apply_phase(network, phase)
    groups = parameter_groups(network, phase, lr=settings.lr, weight_decay=settings.weight_decay)
    sizes = [len(group.get("params", ())) if isinstance(group, dict) else 0 for group in saved]
    if not isinstance(moments, dict) or sizes != [len(group["params"]) for group in groups]:
        raise RunError("the optimizer's state in it is of other parameters.")
    if keeps_state(settings) and not moments:
        raise RunError("it holds no state of the optimizer.")
    for group, own in zip(saved, groups, strict=True):
        for index, parameter in zip(group["params"], own["params"], strict=True):
            _check_moments(moments.get(index, {}), parameter)


def _check_moments(moments: Any, parameter: nn.Parameter) -> None:
    """Check what an optimizer has kept of a parameter.

    Raises:
        RunError: It is of another one.
    """
    kept = [moments.get(name) for name in _MOMENTS] if isinstance(moments, dict) else []
    if any(isinstance(value, Tensor) and value.shape != parameter.shape for value in kept):
        raise RunError("the optimizer's state in it is of other parameters.")


def keeps_state(settings: OptimizerSettings) -> bool:
    """Return whether an optimizer keeps anything of a parameter from step to step."""
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.ones(2, 2)
    group = {"params": [parameter], "lr": settings.lr, "weight_decay": settings.weight_decay}
    optimizer = build_optimizer(settings.name, [group], settings.options)
    optimizer.step()
    return bool(optimizer.state_dict()["state"])
