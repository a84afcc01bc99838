"""Learning rate schedules: a warm-up, then a way down, as a function of how much of a phase is done.

It decides the shape of the rate over a phase; base rates and what a phase is are left to the optimizer and strategy.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from finetune.errors import ConfigError, nearest

_Kind = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes up and down over a phase.

    Attributes:
        kind: The way down after the warm-up: cosine, linear, or constant for none.
        warmup: Share of the phase, in [0, 1), over which the rate rises linearly from 0 to its full value.
        final: Share of the full rate that is left at the end, in [0, 1]; a constant schedule ignores it.
        cycles: How often the rate goes up and down in a phase, each time for the same number of steps.

    Source: Loshchilov and Hutter 2017, SGDR, section 3 (cosine and restarts); Goyal et al. 2017, Accurate, Large
    Minibatch SGD, section 2.2 (gradual warm-up).
    """

    kind: _Kind = "cosine"
    warmup: float = 0.1
    final: float = 0.0
    cycles: int = 1

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: The kind is unknown, or a share is out of range.
        """
        kinds = get_args(_Kind)
        if self.kind not in kinds:
            suggestion = nearest(str(self.kind), kinds)
            raise ConfigError(f"schedule.kind={self.kind} is not one of {', '.join(kinds)}.{suggestion}")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"schedule.warmup={self.warmup} must be a share of the phase, at least 0 and below 1.")
        if not 0 <= self.final <= 1:
            raise ConfigError(f"schedule.final={self.final} must be a share of the full rate, from 0 to 1.")
        if self.cycles < 1:
            raise ConfigError(f"schedule.cycles={self.cycles} must be a whole number of 1 or more.")

    def factor(self, progress: float) -> float:
        """Return the share of the full rate, in [0, 1], at a progress through the phase in [0, 1]."""
        turns = min(progress, 1.0) * self.cycles
        progress = turns - min(math.floor(turns), self.cycles - 1)
        if progress < self.warmup:
            return progress / self.warmup
        descent = (progress - self.warmup) / (1 - self.warmup)
        if self.kind == "cosine":
            return self.final + (1 - self.final) * (1 + math.cos(math.pi * descent)) / 2
        if self.kind == "linear":
            return 1 - (1 - self.final) * descent
        return 1.0


def build_scheduler(optimizer: Optimizer, total_steps: int, schedule: Schedule) -> LambdaLR:
    """Return a scheduler, to be stepped after each of `total_steps` optimizer steps.

    Each step takes the schedule's value at its own middle, so that neither the first nor the last has a rate of zero
    and a phase of a single step trains. Its state holds numbers only and loads with `weights_only`.
    """

    def factor(step: int) -> float:
        return schedule.factor(min(1.0, (step + 0.5) / total_steps))

    return LambdaLR(optimizer, factor)
