"""Learning rate schedules: a warm-up, then a way down, as a function of how much of a phase is done."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from finetune.config.settings.training_groups import Schedule


def rate_factor(schedule: Schedule, progress: float) -> float:
    """Return the share of the full rate, in [0, 1], at a progress through a phase in [0, 1]."""
    turns = min(progress, 1.0) * schedule.cycles
    progress = turns - min(math.floor(turns), schedule.cycles - 1)
    if progress < schedule.warmup:
        return progress / schedule.warmup
    descent = (progress - schedule.warmup) / (1 - schedule.warmup)
    if schedule.kind == "cosine":
        return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * descent)) / 2
    if schedule.kind == "linear":
        return 1 - (1 - schedule.final) * descent
    return 1.0


def build_scheduler(optimizer: Optimizer, total_steps: int, schedule: Schedule) -> LambdaLR:
    """Return a scheduler, to be stepped after each of `total_steps` optimizer steps.

    Each step takes the schedule's value at its own middle, so that neither the first nor the last has a rate of zero
    and a phase of a single step trains. Its state holds numbers only and loads with `weights_only`.
    """

    def factor(step: int) -> float:
        return rate_factor(schedule, min(1.0, (step + 0.5) / total_steps))

    return LambdaLR(optimizer, factor)
